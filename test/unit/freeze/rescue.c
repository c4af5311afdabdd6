/* SPDX-License-Identifier: Apache-2.0 */
/* The tracing worker is killed at every step, and at random moments; the target must not notice. */
#include "target.h"

#include <fcntl.h>
#include <pthread.h>

#include "freeze/rescue.h"
#include "freeze/tree.h"
#include "parasite/region.h"
#include "procfs/procfs.h"

/* --- a target that watches itself ------------------------------------------------------------------ */

enum { COUNTER, SLEEPS, SLEEP_ERRORS, READS, READ_ERRORS, STEP = 64 };

static int feed[2];
static unsigned die_at; /* step of the worker */

static void *sleeper(void *arg)
{
	for (;;) {
		struct timespec ts = {0, 20000000};
		uint64_t start = now_ns();

		if (nanosleep(&ts, NULL) != 0 || now_ns() - start < 20000000)
			shared[SLEEP_ERRORS]++;
		shared[SLEEPS]++;
	}
	return arg;
}

static void *reader(void *arg)
{
	char expected = 0, c;

	for (;;) {
		if (read(feed[0], &c, 1) != 1 || c != expected)
			shared[READ_ERRORS]++;
		expected++;
		shared[READS]++;
	}
	return arg;
}

static void run_watched(void)
{
	pthread_t th;

	pthread_create(&th, NULL, sleeper, NULL);
	pthread_create(&th, NULL, reader, NULL);
	run_counter();
}

struct view {
	char *maps, *status;
	int n_fds;
};

static struct view look_at(pid_t pid)
{
	struct error e = ERROR_INIT;
	struct view v = {slurp("/proc/%d/maps", pid), slurp("/proc/%d/status", pid), 0};
	cleanup_free int *list = NULL;
	size_t n = 0;

	proc_fds(pid, &list, &n, &e);
	v.n_fds = (int)n;
	return v;
}

static void view_deinit(struct view *v)
{
	free(v->maps);
	free(v->status);
}

static void assert_same(const struct view *a, pid_t pid)
{
	static const char *const fields[] = {"TracerPid", "SigBlk", "SigPnd",  "ShdPnd",
					     "SigCgt",    "SigIgn", "Threads", "Seccomp"};
	struct view b = look_at(pid);

	if (strcmp(a->maps, b.maps) != 0)
		print_error("step %u, last %lu: before\n%safter\n%s", die_at, shared[STEP], a->maps, b.maps);
	assert_true(strcmp(a->maps, b.maps) == 0);
	assert_int_equal(a->n_fds, b.n_fds);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const char *x = proc_field(a->status, fields[i]), *y = proc_field(b.status, fields[i]);

		assert_non_null(x);
		assert_non_null(y);
		if (strncmp(x, y, strcspn(x, "\n")) != 0)
			print_error("step %u, last %lu, %s: %.20s, %.20s\n", die_at, shared[STEP], fields[i],
				    x, y);
		assert_memory_equal(x, y, strcspn(x, "\n"));
	}
	view_deinit(&b);
}

/* All of it goes on. */
static void assert_alive(pid_t pid)
{
	uint64_t n = shared[COUNTER], sleeps = shared[SLEEPS], reads = shared[READS];
	char c = (char)reads;

	assert_int_equal(kill(pid, 0), 0);
	assert_int_equal(write(feed[1], &c, 1), 1);
	await(COUNTER, n + 1);
	await(SLEEPS, sleeps + 1);
	await(READS, reads + 1);
	assert_int_equal(shared[SLEEP_ERRORS], 0);
	assert_int_equal(shared[READ_ERRORS], 0);
	assert_int_equal(shared[READS], reads + 1);
}

/* --- the worker ------------------------------------------------------------------------------------ */

static void step(unsigned n)
{
	shared[STEP] = n;
	if (n == die_at)
		raise(SIGKILL);
}

static void capture(pid_t pid)
{
	struct error e = ERROR_INIT;
	struct tree *t;
	struct region *r;
	struct runner *w[3] = {0};
	struct batch b[3] = {0}, *list[3] = {&b[0], &b[1], &b[2]};
	int64_t fd;

	step(0);
	if (tree_scan(pid, &t, &e) < 0 || tree_freeze(t, NULL, NULL, NULL, &e) < 0)
		_exit(2);
	struct thread **th = t->procs[0]->threads;

	step(1);
	for (size_t i = 0; i < t->procs[0]->n_threads; i++)
		task_save(&th[i]->task, &e);
	step(2);
	task_syscall(&th[0]->task, SYS_getpid, NULL, &fd, NULL, NULL, &e);
	task_syscall(&th[1]->task, SYS_getpid, NULL, &fd, NULL, NULL, &e);
	step(3);
	if (region_inject(&r, &th[0]->task, 0, 1 << 20, &e) < 0)
		_exit(3);
	step(4);
	for (size_t i = 0; i < 3; i++) {
		if (runner_start(&w[i], r, &th[i]->task, &e) < 0)
			_exit(4);
		step(5 + (unsigned)i);
	}
	batch_call(&b[0], "open", SYS_openat, ARG(AT_FDCWD), ARG_STR(&b[0], "/dev/null"), ARG(O_RDONLY));
	batch_opens_fd(&b[0], 0);
	for (unsigned i = 0; i < 3; i++)
		for (unsigned n = 0; n < 200; n++)
			batch_call(&b[i], "getpid", SYS_getpid);
	if (runner_run_all(w, list, 3, &e) < 0)
		_exit(5);
	fd = batch_result(&b[0], 0);
	step(8);
	batch_deinit(&b[0]);
	batch_call(&b[0], "close", SYS_close, ARG(fd));
	if (runner_run(w[0], &b[0], &e) < 0)
		_exit(6);
	step(9);
	if (runner_stop(w[2], &e) < 0)
		_exit(7);
	step(10);
	if (region_remove(r, &e) < 0)
		_exit(8);
	step(11);
	for (size_t i = 0; i < 3; i++) {
		task_restore(&th[i]->task, &e);
		step(12 + (unsigned)i);
	}
	if (tree_thaw(t, &e) < 0 || error_is(&e))
		_exit(9);
	step(15);
	tree_free(t);
	for (size_t i = 0; i < 3; i++)
		batch_deinit(&b[i]);
}

#define LAST_STEP 15

static pid_t begin(struct view *v)
{
	assert_int_equal(pipe(feed), 0);
	pid_t pid = target_fork(run_watched);

	await(COUNTER, 1);
	await(SLEEPS, 1);
	*v = look_at(pid);
	return pid;
}

static void end(pid_t pid, struct view *v)
{
	target_kill(pid);
	view_deinit(v);
	close(feed[0]);
	close(feed[1]);
}

static void test_every_step(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct view v;
	int status;
	pid_t pid = begin(&v);

	for (die_at = 0; die_at <= LAST_STEP + 1; die_at++) {
		assert_ok(rescue_init(&e), &e);
		pid_t worker = fork();

		if (worker == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			capture(pid);
			_exit(0);
		}
		assert_int_equal(waitpid(worker, &status, 0), worker);
		if (die_at <= LAST_STEP)
			assert_true(WIFSIGNALED(status) && shared[STEP] == die_at);
		else
			assert_int_equal(status, 0);
		int cured = rescue_run(&e);

		assert_ok(cured, &e);
		if (die_at < 2 || die_at > 13)
			assert_int_equal(cured, 0);
		assert_same(&v, pid);
		assert_alive(pid);
		assert_same(&v, pid);
	}
	end(pid, &v);
}

static void test_any_moment(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct view v;
	unsigned seed = 1, cured = 0;
	pid_t pid = begin(&v);

	die_at = ~0u;
	for (int i = 0; i < 150; i++) {
		assert_ok(rescue_init(&e), &e);
		pid_t worker = fork();

		if (worker == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				capture(pid);
		}
		struct timespec ts = {0, 1000000 + rand_r(&seed) % 9000000};

		nanosleep(&ts, NULL);
		target_kill(worker);
		int n = rescue_run(&e);

		assert_ok(n, &e);
		cured += n > 0;
		assert_same(&v, pid);
		assert_alive(pid);
	}
	print_message("%u of 150 needed help\n", cured);
	assert_true(cured > 10);
	end(pid, &v);
}

/* Nobody comes: the threads in the parasite let themselves go after a while. What stays is the region. */
static void test_no_supervisor(void **state)
{
	(void)state;
	struct view v;
	int status;
	static const unsigned steps[] = {7, 8};
	pid_t pid = begin(&v);

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		die_at = steps[i];
		pid_t worker = fork();

		if (worker == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			capture(pid);
			_exit(0);
		}
		assert_int_equal(waitpid(worker, &status, 0), worker);
		assert_true(WIFSIGNALED(status));
		uint64_t n = shared[COUNTER];

		msleep(500);
		assert_int_equal(shared[COUNTER], n);
		await(COUNTER, n + 1);
		struct view after = look_at(pid);

		free(after.maps);
		after.maps = xstrdup(v.maps);
		assert_int_equal(after.n_fds, v.n_fds);
		view_deinit(&v);
		v = look_at(pid);
		for (char *line = v.maps; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
			if (strstr(line, "rwxs"))
				goto kept;
		fail_msg("the region is gone");
	kept:
		assert_non_null(strstr(v.status, "SigBlk:\t0000000000000000"));
		assert_alive(pid);
		view_deinit(&after);
	}
	end(pid, &v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_supervisor),
		cmocka_unit_test(test_every_step),
		cmocka_unit_test(test_any_moment),
	};

	return cmocka_run_group_tests(tests, target_setup, target_teardown);
}
