/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "fake_session.h"
#include "service/job.h"
#include "service/keeper.h"
#include "service/msg.h"
#include "service/rundir.h"

static char dir[64];
static pid_t target;
static unsigned rounds;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ferry-keeper-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	cleanup_free char *run = xasprintf("%s/run", dir);

	setenv("FERRY_RUN_DIR", run, 1);
	snprintf(fake_log, sizeof(fake_log), "%s/log", dir);
	for (int i = 1; i <= 3; i++) {
		cleanup_free char *sub = xasprintf("%s/%d", dir, i);

		mkdir(sub, 0700);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* no zombie keepers are left behind */
	fake_trouble = "";
	target = fork();
	if (target == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return target < 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", dir);

	(void)state;
	kill(target, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return system(cmd);
}

static void count(void *ctx, const json_t *ev)
{
	(void)ctx;
	rounds += !strcmp(msg_str(ev, "event", ""), "round");
}
static const struct events counting = {count, NULL};

/* One command of the chain. */
static int command(enum chain_op op, int n, const char *parent, struct error *e)
{
	cleanup_free char *sub = xasprintf("%s/%d", dir, n);
	cleanup_close int fd = open(sub, O_RDONLY | O_DIRECTORY), sock = -1;
	struct chain_request r = {.op = op,
				  .dirfd = fd,
				  .page_server = -1,
				  .parent = parent,
				  .session = {.pid = target, .backend = "b"}};
	struct job *j = NULL;

	error_clear(e);
	if (job_open(&j, "test", target, &counting, e) < 0)
		return -e->code;
	sock = keeper_connect(target, op == CHAIN_PREDUMP, &fake_ops, e);
	int code = sock < 0 ? sock : keeper_request(sock, &r, e);

	if (code == 0)
		code = job_run_peer(j, sock, e);
	job_free(j);
	return code;
}

/* What was said so far, once @last is in it. */
static void said(const char *text)
{
	for (int i = 0; i < 500; i++) {
		cleanup_free char *now = NULL;

		if (read_file(fake_log, &now) >= 0 && !strcmp(now, text))
			break;
		usleep(10000);
	}
	cleanup_free char *s = fake_said();

	assert_string_equal(s, text);
}

static bool gone(void)
{
	cleanup_free char *path = rundir_keeper_path(target);

	for (int i = 0; i < 500 && access(path, F_OK) == 0; i++)
		usleep(10000);
	return access(path, F_OK) < 0;
}

static void a_chain(void **state)
{
	struct error e;

	(void)state;
	rounds = 0;
	assert_int_equal(command(CHAIN_PREDUMP, 1, NULL, &e), 0);
	assert_int_equal(command(CHAIN_PREDUMP, 2, "../1", &e), 0);
	assert_int_equal(command(CHAIN_DUMP, 3, "../2", &e), 0);
	assert_int_equal(rounds, 3);
	said("open b;predump -;options b;predump ../1;options b;dump ../2;close;");
	assert_true(gone());
	error_clear(&e);
	assert_int_equal(keeper_connect(target, false, &fake_ops, &e), -ENOENT);
	assert_false(error_is(&e));
	assert_int_equal(keeper_end(target, &e), 0);
}

static void ends_when_told(void **state)
{
	struct error e;

	(void)state;
	assert_int_equal(command(CHAIN_PREDUMP, 1, NULL, &e), 0);
	assert_int_equal(keeper_end(target, &e), 1);
	assert_true(gone());
	said("open b;predump -;close;");
}

static void ends_with_the_target(void **state)
{
	struct error e;

	(void)state;
	assert_int_equal(command(CHAIN_PREDUMP, 1, NULL, &e), 0);
	kill(target, SIGKILL);
	waitpid(target, NULL, 0);
	assert_true(gone());
	said("open b;predump -;close;");
}

static void failure(void **state)
{
	struct error e;

	(void)state;
	fake_trouble = "fail";
	assert_int_equal(command(CHAIN_PREDUMP, 1, NULL, &e), -ENOSPC);
	assert_string_equal(e.text, "disk full");
	said("open b;predump -;close;");
	assert_true(gone());
}

static void worker_killed(void **state)
{
	struct error e;

	(void)state;
	fake_trouble = "die";
	assert_int_equal(command(CHAIN_PREDUMP, 1, NULL, &e), -EIO);
	assert_non_null(strstr(e.text, "was killed by signal 9; the process runs on"));
	said("open b;predump -;");
	assert_true(gone());
}

/* A client that goes away takes its request with it. */
static void client_gone(void **state)
{
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY);
	struct chain_request r = {.dirfd = fd, .page_server = -1, .session = {.pid = target, .backend = "b"}};
	struct error e = ERROR_INIT;

	(void)state;
	fake_trouble = "hang";
	int sock = keeper_connect(target, true, &fake_ops, &e);

	assert_true(sock >= 0);
	assert_int_equal(keeper_request(sock, &r, &e), 0);
	said("open b;predump -;");

	/* Meanwhile another one is turned away. */
	cleanup_close int second = keeper_connect(target, false, &fake_ops, &e);
	json_t *answer = NULL;

	assert_int_equal(keeper_request(second, &r, &e), 0);
	assert_int_equal(msg_recv(second, &answer, NULL), 1);
	assert_int_equal(msg_to_error(json_object_get(answer, "result"), &e), -EBUSY);
	json_decref(answer);
	assert_int_equal(keeper_end(target, &(struct error)ERROR_INIT), -EBUSY);

	close(sock);
	said("close;");
	assert_true(gone());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_when_told, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_with_the_target, setup, teardown),
		cmocka_unit_test_setup_teardown(failure, setup, teardown),
		cmocka_unit_test_setup_teardown(worker_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(client_gone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
