/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "service/daemon.h"
#include "service/msg.h"
#include "base/net.h"
#include "service/rundir.h"

static char dir[64], port[8], *control_path;
static pid_t server;

static void quiet(int level, const char *text, const struct log_about *about)
{
	cleanup_free char *path = xasprintf("%s/log", dir);
	FILE *f = fopen(path, "a");

	fprintf(f, "%d %s [%s] [%d]\n", level, text, about->peer ? about->peer : "", about->pid);
	fclose(f);
}

/* 'p': tell the process id; 'r': leave a child behind, as a migrated root is, and tell its pid; 'x': fail;
 * else wait to be stopped. */
static int serve(int sock, const struct serve_options *o, const struct events *ev, struct error *e)
{
	pid_t pid = getpid();
	char c = 0;

	(void)o;
	events_emit(ev, json_pack("{s:s,s:i}", "event", "start", "pid", 4711));
	if (read(sock, &c, 1) != 1)
		return error_say(e, EPIPE, "nothing came");
	if (c == 'x')
		return error_say(e, EPROTO, "speaks something else");
	if (c == 'r') {
		pid = fork();
		if (pid == 0) {
			alarm(20); /* also when the test fails */
			pause();
			_exit(3);
		}
	}
	if (write(sock, &pid, sizeof(pid)) < 0)
		return -errno;
	while (c == 'w' && !job_aborted())
		usleep(1000);
	return c == 'w' ? job_check_abort(e) : 0;
}

static int setup(void **state)
{
	struct error e = ERROR_INIT;
	int lock;

	(void)state;
	strcpy(dir, "/tmp/ferry-daemon-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	setenv("FERRY_RUN_DIR", dir, 1);
	control_path = xasprintf("%s/ferryd.sock", dir);
	if (rundir_lock(&lock, &e) < 0)
		return -1;
	close(lock);
	int control = rundir_listen(control_path, &e), l = net_listen("127.0.0.1", "0", &e);

	if (control < 0 || l < 0)
		return -1;
	snprintf(port, sizeof(port), "%d", net_port(l));
	server = fork();
	if (server == 0) {
		struct daemon_options o = {.max_peers = 2,
					   .admission = {1, 1},
					   .first_byte_ms = 300,
					   .log_level = 4,
					   .serve = serve,
					   .log = quiet};

		_exit(daemon_run(&o, &l, 1, control, &e) < 0);
	}
	close(control);
	close(l);
	return 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", dir);

	(void)state;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	free(control_path);
	return system(cmd);
}

static int dial(const char *what, pid_t *ret)
{
	struct error e = ERROR_INIT;
	int s = net_connect("127.0.0.1", port, 1000, &e);

	assert_true(s >= 0);
	if (*what)
		assert_int_equal(write(s, what, 1), 1);
	if (ret && read_full(s, ret, sizeof(*ret)) < 0)
		*ret = -1;
	return s;
}

static bool closed_within(int s, int ms)
{
	struct pollfd p = {s, POLLIN, 0};
	char c;

	return poll(&p, 1, ms) == 1 && read(s, &c, 1) <= 0;
}

static json_t *status(void)
{
	json_t *q = json_pack("{s:s}", "op", "status"), *m = NULL;
	cleanup_close int s = rundir_connect(control_path, true);

	assert_true(s >= 0);
	assert_int_equal(msg_send(s, q, NULL, 0, false), 0);
	assert_int_equal(msg_recv(s, &m, NULL), 1);
	json_decref(q);
	return m;
}

/* Jobs at work, once there are @n or after a second. */
static size_t jobs(size_t n)
{
	size_t have = 0;

	for (int i = 0; i < 200; i++) {
		json_t *m = status();

		have = json_array_size(json_object_get(m, "jobs"));
		json_decref(m);
		if (have == n)
			break;
		usleep(5000);
	}
	return have;
}

static bool logged(const char *text)
{
	cleanup_free char *path = xasprintf("%s/log", dir);

	for (int i = 0; i < 200; i++) {
		cleanup_free char *all = NULL;

		if (read_file(path, &all) >= 0 && strstr(all, text))
			return true;
		usleep(5000);
	}
	return false;
}

static void peers(void **state)
{
	pid_t a, b;

	(void)state;
	int s = dial("p", &a), t = dial("p", &b);

	assert_true(a > 0 && b > 0 && a != b && a != server);
	close(s);
	close(t);
	assert_int_equal(jobs(0), 0);
	close(dial("x", NULL));
	assert_true(logged("speaks something else"));
	/* One that says nothing is dropped. */
	s = dial("", NULL);
	assert_true(closed_within(s, 2000));
	close(s);
	assert_true(logged("said nothing"));
	assert_int_equal(jobs(0), 0);
}

static void too_many(void **state)
{
	pid_t a, b;
	int s = dial("w", &a), t = dial("w", &b), u = dial("p", NULL);

	(void)state;
	assert_int_equal(jobs(2), 2);
	assert_true(closed_within(u, 2000));
	assert_true(logged("turned away: 2 peers"));
	json_t *m = status();
	const json_t *job = json_array_get(json_object_get(m, "jobs"), 0);

	assert_int_equal(msg_int(job, "target", 0), 4711);
	assert_non_null(strstr(msg_str(job, "peer", ""), "127.0.0.1 port"));
	json_decref(m);
	kill(a, SIGKILL);
	assert_true(logged("killed by signal 9"));
	assert_int_equal(jobs(1), 1);
	kill(b, SIGTERM);
	assert_int_equal(jobs(0), 0);
	close(s);
	close(t);
	close(u);
}

/* What arrived outlives its worker, and is no child of the daemon: it lives on when that ends. */
static void arrived(void **state)
{
	struct error e = ERROR_INIT;
	struct proc_stat st;
	pid_t root;

	(void)state;
	close(dial("r", &root));
	assert_true(root > 0);
	assert_int_equal(jobs(0), 0);
	assert_int_equal(proc_stat_read(root, 0, &st, &e), 0);
	assert_int_not_equal(st.ppid, server);
	assert_int_not_equal(st.state, 'Z');
	kill(root, SIGKILL);
}

static void the_end(void **state)
{
	pid_t worker;
	int status_word, s = dial("w", &worker);

	(void)state;
	kill(server, SIGTERM);
	assert_true(closed_within(s, 2000));
	waitpid(server, &status_word, 0);
	assert_int_equal(status_word, 0);
	assert_int_equal(kill(worker, 0), -1);
	close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(peers),
		cmocka_unit_test(too_many),
		cmocka_unit_test(arrived),
		cmocka_unit_test(the_end),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, setup, teardown);
}
