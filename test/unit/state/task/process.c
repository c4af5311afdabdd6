/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>

#include "state/files/files.h"

static const struct state_kind *const kinds[] = {&kind_process, NULL};

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (write(fd, text, strlen(text)) < 0)
		shared[15] = errno;
	close(fd);
}

static void run_plain(void)
{
	shared[0]++;
	for (;;)
		pause();
}

static void run_special(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	write_text("/proc/self/oom_score_adj", "321");
	write_text("/proc/self/coredump_filter", "0x7d");
	run_plain();
}

static void test_move(void **state)
{
	(void)state;
	struct snapshot s;

	memset((void *)shared, 0, 4096);
	pid_t from = start(run_special), to = start(run_plain);

	await(0, 2);
	assert_int_equal(shared[15], 0);
	capture(from, kinds, &s);

	const Ferry__ProcessState *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_PROCESS, from, 0);

	assert_int_equal(m->oom_score_adj, 321);
	assert_true(m->child_subreaper);
	assert_true(m->has_coredump_filter);
	assert_int_equal(m->coredump_filter, 0x7d);
	snapshot_deinit(&s);
	move_and_compare(from, to, kinds);
	finish(from);
	finish(to);
}

static void test_traced(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct side s;

	memset((void *)shared, 0, 4096);
	pid_t pid = start(run_plain);

	await(0, 1);
	side_list(&s, pid);
	assert_ok(kind_process.preflight(NULL, &s.p, &e), &e);

	/* By another: refused. */
	pid_t tracer = fork();

	if (tracer == 0) {
		ptrace(PTRACE_SEIZE, pid, NULL, NULL);
		run_plain();
	}
	await(0, 2);
	assert_int_equal(kind_process.preflight(NULL, &s.p, &e), -EBUSY);
	assert_non_null(strstr(e.text, "is being traced by"));
	finish(tracer);
	error_clear(&e);
	/* By us: that is how it is captured. */
	assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	assert_ok(kind_process.preflight(NULL, &s.p, &e), &e);
	finish(pid);
}

static int terminal;

static void run_on_terminal(void)
{
	setsid();
	if (ioctl(terminal, TIOCSCTTY, 0) < 0)
		shared[15] = errno;
	signal(SIGHUP, SIG_IGN);
	run_plain();
}

static void test_terminal(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct side s;

	memset((void *)shared, 0, 4096);
	int master = posix_openpt(O_RDWR | O_NOCTTY);

	assert_true(master >= 0);
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
	pid_t pid = start(run_on_terminal);

	await(0, 1);
	assert_int_equal(shared[15], 0);
	side_list(&s, pid);
	struct tree none = {0};
	struct capture c = {.tree = &none};

	assert_int_equal(kind_terminal.preflight(&c, &s.p, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "the other side of its controlling terminal"));
	files_capture_free(&c);
	finish(pid);
	close(terminal);
	close(master);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_traced),
		cmocka_unit_test(test_terminal),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
