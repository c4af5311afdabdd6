/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/util.h"
#include "service/job.h"
#include "service/msg.h"
#include "service/rundir.h"

static char dir[64];
static unsigned seen;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ferry-job-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	setenv("FERRY_RUN_DIR", dir, 1);
	return 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", dir);

	(void)state;
	return system(cmd);
}

static void count(void *ctx, const json_t *ev)
{
	(void)ctx;
	seen += !strcmp(msg_str(ev, "event", ""), "round");
}
static const struct events counting = {count, NULL};

/* More than a socket takes: none is lost, and none is waited for. */
static int chatty(void *ctx, int sock, const struct events *ev, struct error *e)
{
	(void)ctx;
	(void)sock;
	(void)e;
	for (int i = 0; i < 3000; i++)
		events_emit(ev, json_pack("{s:s,s:i}", "event", "round", "n", i));
	events_log(ev, 4, "not sent at this level");
	return 0;
}

static int fails(void *ctx, int sock, const struct events *ev, struct error *e)
{
	(void)sock;
	(void)ev;
	error_phase(e, "round 2");
	return error_say(e, ENOSPC, "no room: %s", (char *)ctx);
}

static int dies(void *ctx, int sock, const struct events *ev, struct error *e)
{
	(void)ctx;
	(void)sock;
	(void)ev;
	(void)e;
	raise(SIGKILL);
	return 0;
}

static int hangs(void *ctx, int sock, const struct events *ev, struct error *e)
{
	(void)ctx;
	(void)sock;
	events_emit(ev, json_pack("{s:s}", "event", "freeze"));
	while (job_check_abort(e) == 0)
		usleep(1000);
	return -e->code;
}

static void results(void **state)
{
	struct error e = ERROR_INIT;
	struct job *j = NULL;

	(void)state;
	assert_int_equal(job_open(&j, "dump", 77, &counting, &e), 0);
	assert_int_equal(job_run_worker(j, chatty, NULL, 3, &e), 0);
	assert_int_equal(seen, 3000);
	assert_int_equal(job_run_worker(j, fails, "x", 3, &e), -ENOSPC);
	assert_string_equal(e.text, "no room: x");
	assert_string_equal(e.phase, "round 2");
	assert_non_null(strstr(e.where, "job.c:"));
	job_free(j);
	assert_true(access(rundir_path(), F_OK) == 0);
}

static void killed_worker(void **state)
{
	struct error e = ERROR_INIT;
	struct job *j = NULL;

	(void)state;
	assert_int_equal(job_open(&j, "dump", 77, NULL, &e), 0);
	assert_int_equal(job_run_worker(j, dies, NULL, 3, &e), -EIO);
	assert_non_null(
		strstr(e.text, "process 77 was killed by signal 9; the process was put right and runs on"));
	job_free(j);
}

static int ask(const char *path, const char *op, json_t **ret)
{
	json_t *q = json_pack("{s:s}", "op", op);
	cleanup_close int sock = rundir_connect(path, true);

	*ret = NULL;
	int r = sock < 0 ? sock : msg_send(sock, q, NULL, 0, false);

	json_decref(q);
	return r < 0 ? r : msg_recv(sock, ret, NULL);
}

/* From another process, as ferry status and ferry cancel do. Exit code 0: all was as it should be. */
static int control(void)
{
	cleanup_free char *path = rundir_job_path(77, "dump");
	struct error e = ERROR_INIT;
	struct job *other = NULL;
	json_t *m = NULL;
	int bad = 0;

	for (int i = 0; i < 8000; i++, usleep(5000)) {
		json_decref(m);
		if (ask(path, "status", &m) == 1 && !strcmp(msg_str(m, "phase", ""), "freeze"))
			break;
	}
	bad |= strcmp(msg_str(m, "verb", ""), "dump") || msg_int(m, "target", 0) != 77;
	json_decref(m);
	bad |= (job_open(&other, "migrate", 77, NULL, &e) != -EBUSY) << 1;
	bad |= !strstr(e.text, "another ferry dump works on it") << 2;
	error_clear(&e);
	bad |= (job_open(&other, "dump", 78, NULL, &e) != 0) << 3;
	job_free(other);
	bad |= (ask(path, "cancel", &m) != 1) << 4;
	json_decref(m);
	return bad;
}

static void status_and_cancel(void **state)
{
	struct error e = ERROR_INIT;
	struct job *j = NULL;
	int status;

	(void)state;
	pid_t pid = fork();

	if (pid == 0)
		_exit(control());
	assert_int_equal(job_open(&j, "dump", 77, NULL, &e), 0);
	assert_int_equal(job_run_worker(j, hangs, NULL, 3, &e), -ECANCELED);
	job_free(j);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void ctrl_c(void **state)
{
	struct error e = ERROR_INIT;
	struct job *j = NULL;

	(void)state;
	assert_int_equal(job_open(&j, "dump", 77, NULL, &e), 0);
	kill(getpid(), SIGINT);
	assert_int_equal(job_run_worker(j, hangs, NULL, 3, &e), -ECANCELED);
	job_free(j);
}

/* kill -9 of the supervisor: the worker notices. */
static void lost_supervisor(void **state)
{
	int pipefd[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(pipefd), 0);
	pid_t pid = fork();

	if (pid == 0) {
		struct error e = ERROR_INIT;
		struct job *j = NULL;

		close(pipefd[0]);
		if (job_open(&j, "dump", 79, NULL, &e) == 0)
			job_run_worker(j, hangs, NULL, 3, &e);
		_exit(1);
	}
	close(pipefd[1]);
	usleep(100000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(read(pipefd[0], &byte, 1), 0); /* the last holder of the pipe is gone */
	close(pipefd[0]);
	struct error e = ERROR_INIT;
	struct job *j = NULL;

	assert_int_equal(job_open(&j, "dump", 79, NULL, &e), 0); /* its socket is swept */
	job_free(j);
}

static void without_run_dir(void **state)
{
	struct error e = ERROR_INIT;
	struct job *j = NULL;

	(void)state;
	setenv("FERRY_RUN_DIR", "/proc/nowhere", 1);
	assert_int_equal(job_open(&j, "dump", 77, NULL, &e), 0);
	assert_int_equal(job_run_worker(j, chatty, NULL, 3, &e), 0);
	job_free(j);
	setenv("FERRY_RUN_DIR", dir, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(results),           cmocka_unit_test(killed_worker),
		cmocka_unit_test(status_and_cancel), cmocka_unit_test(ctrl_c),
		cmocka_unit_test(lost_supervisor),   cmocka_unit_test(without_run_dir),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, setup, teardown);
}
