/* SPDX-License-Identifier: Apache-2.0 */
#include "target.h"

#include <pthread.h>

#include "freeze/tree.h"
#include "procfs/procfs.h"

static bool held(pid_t pid)
{
	struct error e = ERROR_INIT;
	struct proc_status s = {0};
	bool ours = proc_status_read(pid, pid, &s, &e) == 0 && s.tracer == gettid();

	proc_status_deinit(&s);
	return ours;
}

/* --- refusals ------------------------------------------------------------------------------------ */

static void refused(pid_t pid, const char *text)
{
	struct error e = ERROR_INIT;

	assert_true(tree_check_root(pid, &e) < 0);
	if (!strstr(e.text, text))
		print_error("%s\n", e.text);
	assert_non_null(strstr(e.text, text));
}

static void run_exit(void)
{
	_exit(3);
}

static void test_refusals(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	siginfo_t si;
	pid_t zombie = target_fork(run_exit), fine = target_fork(run_pause);

	assert_int_equal(waitid(P_PID, (id_t)zombie, &si, WEXITED | WNOWAIT), 0);
	refused(zombie, "zombie");
	refused(getpid(), "itself");
	refused(getppid(), getppid() == 1 ? "init" : "ancestor");
	refused(1, "init");
	refused(2, "kernel thread");
	refused(4194303, "does not exist");
	refused(0, "not a process id");
	assert_ok(tree_check_root(fine, &e), &e);
	waitpid(zombie, NULL, 0);
	target_kill(fine);
}

/* --- shape --------------------------------------------------------------------------------------- */

static void *sleep_thread(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

static void run_family(void)
{
	pthread_t th;

	for (int i = 0; i < 3; i++)
		pthread_create(&th, NULL, sleep_thread, NULL);
	for (int i = 0; i < 2; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (i == 0 && fork() == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				shared[1] = 1;
			}
			for (;;)
				pause();
		}
	pid_t dead = fork();

	if (dead == 0)
		_exit(7);
	siginfo_t si;

	waitid(P_PID, (id_t)dead, &si, WEXITED | WNOWAIT);
	shared[2] = (uint64_t)dead;
	run_pause();
}

static void test_family(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	pid_t pid = target_fork(run_family);

	await(0, 1);
	await(1, 1);
	assert_ok(tree_scan(pid, &t, &e), &e);
	assert_int_equal(t->n, 5);
	assert_int_equal(t->procs[0]->pid, pid);
	assert_int_equal(t->procs[0]->n_threads, 4);
	t->procs[0]->data = &e;
	assert_ok(tree_freeze(t, NULL, NULL, NULL, &e), &e);
	assert_int_equal(t->n, 5);
	assert_ptr_equal(t->procs[0]->data, &e);
	for (size_t i = 0; i < t->n; i++) {
		struct process *p = t->procs[i];

		if (i)
			assert_true(p->parent && p->parent->pid == p->ppid);
		if (p->pid == (pid_t)shared[2]) {
			assert_int_equal(p->state, PROCESS_ZOMBIE);
			assert_int_equal(p->exit_status, 7 << 8);
			assert_int_equal(p->pidfd, -1);
			continue;
		}
		assert_int_equal(p->state, PROCESS_ALIVE);
		for (size_t j = 0; j < p->n_threads; j++)
			assert_int_equal(p->threads[j]->task.state, TASK_STOPPED);
	}
	assert_ok(tree_thaw(t, &e), &e);
	for (size_t i = 0; i < t->n; i++)
		assert_false(held(t->procs[i]->pid));
	tree_free(t);
	target_kill(pid);
}

/* --- changes ------------------------------------------------------------------------------------- */

static int n_gone;
static void count_gone(void *ctx, struct process *p)
{
	(void)ctx;
	(void)p;
	n_gone++;
}

/* Children and threads come and go all the time; all of them count in shared[8...]. */
static void *short_thread(void *arg)
{
	shared[5]++;
	return arg;
}

static void run_storm(void)
{
	shared[0] = 1;
	for (;;) {
		pthread_t th;
		pid_t pid = fork();

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (fork() == 0)
				_exit(0);
			shared[4]++;
			_exit(0);
		}
		if (pthread_create(&th, NULL, short_thread, NULL) == 0)
			pthread_join(th, NULL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

/* Not one of the tree runs or appears while it is frozen. */
static void check_still(struct tree *t)
{
	struct error e = ERROR_INIT;
	uint64_t forks = shared[4], threads = shared[5];
	size_t n = t->n;

	msleep(5);
	assert_int_equal(shared[4], forks);
	assert_int_equal(shared[5], threads);
	assert_int_equal(tree_rescan(t, NULL, NULL, &e), 0);
	assert_int_equal(t->n, n);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < t->procs[i]->n_threads; j++)
			assert_true(t->procs[i]->state == PROCESS_ZOMBIE ||
				    t->procs[i]->threads[j]->task.state != TASK_RUNNING);
}

static void test_storm(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	pid_t pid = target_fork(run_storm);

	await(0, 1);
	assert_ok(tree_scan(pid, &t, &e), &e);
	for (int i = 0; i < 40; i++) {
		assert_ok(tree_freeze(t, NULL, count_gone, NULL, &e), &e);
		check_still(t);
		assert_ok(tree_thaw(t, &e), &e);
		uint64_t forks = shared[4];

		for (int n = 0; shared[4] == forks && n < 2000; n++)
			msleep(1);
		assert_true(shared[4] > forks);
	}
	tree_free(t);
	target_kill(pid);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static void run_vfork(void)
{
	for (;;) {
		shared[0]++;
		pid_t pid = vfork();

		if (pid == 0) {
			/* Long enough to be met in here. */
			struct timespec ts = {0, 3000000};

			nanosleep(&ts, NULL);
			execl("/bin/true", "true", NULL);
			_exit(1);
		}
		waitpid(pid, NULL, 0);
		shared[4]++;
	}
}

static void test_vfork(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	pid_t pid = target_fork(run_vfork);

	await(0, 1);
	assert_ok(tree_scan(pid, &t, &e), &e);
	for (int i = 0; i < 20; i++) {
		assert_ok(tree_freeze(t, NULL, NULL, NULL, &e), &e);
		check_still(t);
		assert_ok(tree_thaw(t, &e), &e);
		await(4, shared[4] + 1);
	}
	tree_free(t);
	target_kill(pid);
}

static void run_vfork_stuck(void)
{
	shared[0] = 1;
	if (vfork() == 0)
		for (;;)
			pause();
}

static void test_vfork_stuck(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	struct freeze_options opt = {.timeout_ms = 200};
	pid_t pid = target_fork(run_vfork_stuck);

	await(0, 1);
	msleep(20);
	assert_ok(tree_scan(pid, &t, &e), &e);
	assert_int_equal(t->n, 2);
	pid_t child = t->procs[1]->pid;

	assert_int_equal(tree_freeze(t, &opt, NULL, NULL, &e), -ETIMEDOUT);
	assert_non_null(strstr(e.text, "state D"));
	tree_free(t);
	assert_false(held(child));
	kill(child, SIGKILL);
	target_kill(pid);
}

/* --- other cases --------------------------------------------------------------------------------- */

static void run_traced(void)
{
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	shared[1] = (uint64_t)child;
	run_pause();
}

static void test_other_tracer(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	char number[64];
	pid_t pid = target_fork(run_traced);

	await(0, 1);
	pid_t child = (pid_t)shared[1];
	pid_t tracer = fork();

	if (tracer == 0) {
		struct task other;
		struct error he = ERROR_INIT;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		shared[2] = task_seize(&other, child, child, false, &he) == 0;
		for (;;)
			pause();
	}
	await(2, 1);
	assert_ok(tree_scan(pid, &t, &e), &e);
	assert_int_equal(tree_freeze(t, NULL, NULL, NULL, &e), -EPERM);
	snprintf(number, sizeof(number), "already traced by pid %d", tracer);
	assert_non_null(strstr(e.text, number));
	assert_false(held(pid));
	tree_free(t);
	target_kill(tracer);
	target_kill(pid);
}

static void *outlive(void *arg)
{
	(void)arg;
	msleep(50);
	shared[0] = 1;
	for (;;)
		shared[1]++;
	return NULL;
}

static void run_dead_leader(void)
{
	pthread_t th;

	pthread_create(&th, NULL, outlive, NULL);
	pthread_exit(NULL);
}

static void test_dead_leader(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	pid_t pid = target_fork(run_dead_leader);

	await(0, 1);
	assert_ok(tree_scan(pid, &t, &e), &e);
	assert_ok(tree_freeze(t, NULL, NULL, NULL, &e), &e);
	assert_int_equal(t->procs[0]->state, PROCESS_ALIVE);
	/* It goes by the other thread, whose files can be had. */
	assert_int_equal(t->procs[0]->n_threads, 1);
	assert_int_equal(t->procs[0]->threads[0]->task.state, TASK_STOPPED);
	assert_int_not_equal(process_living(t->procs[0]), pid);
	assert_int_equal(process_living(t->procs[0]), t->procs[0]->threads[0]->task.tid);
	int copy = sys_pidfd_getfd(process_living_fd(t->procs[0]), 2);

	assert_true(copy >= 0);
	close(copy);
	uint64_t n = shared[1];

	msleep(5);
	assert_int_equal(shared[1], n);
	assert_ok(tree_thaw(t, &e), &e);
	await(1, n + 1);
	tree_free(t);
	target_kill(pid);
}

static void test_stopped(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	int status;
	pid_t pid = target_fork(run_counter);

	await(0, 1);
	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_ok(tree_scan(pid, &t, &e), &e);
	assert_ok(tree_freeze(t, NULL, NULL, NULL, &e), &e);
	assert_int_equal(t->procs[0]->state, PROCESS_STOPPED);
	assert_ok(tree_thaw(t, &e), &e);
	tree_free(t);
	msleep(5);
	uint64_t n = shared[0];

	msleep(5);
	assert_int_equal(shared[0], n);
	cleanup_free char *text = slurp("/proc/%d/stat", pid);

	assert_non_null(strstr(text, ") T "));
	kill(pid, SIGCONT);
	await(0, n + 1);
	target_kill(pid);
}

static void test_kill(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct tree *t = NULL;
	int status;
	pid_t pid = target_fork(run_family), kids[8];

	await(0, 1);
	assert_ok(tree_scan(pid, &t, &e), &e);
	size_t n = t->n;

	for (size_t i = 0; i < n; i++)
		kids[i] = t->procs[i]->pid;
	/* By another process: a tracer that is the parent too reaps for both. */
	pid_t worker = fork();

	if (worker == 0)
		_exit(tree_freeze(t, NULL, NULL, NULL, &e) < 0 || tree_kill(t, &e) < 0);
	assert_int_equal(waitpid(worker, &status, 0), worker);
	assert_int_equal(status, 0);
	tree_free(t);
	assert_int_equal(waitpid(pid, &status, WNOHANG), pid);
	assert_true(WIFSIGNALED(status));
	for (size_t i = 1; i < n; i++) {
		cleanup_free char *text = slurp("/proc/%d/stat", kids[i]);

		assert_true(!*text || strstr(text, ") Z "));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),    cmocka_unit_test(test_family),
		cmocka_unit_test(test_storm),       cmocka_unit_test(test_vfork),
		cmocka_unit_test(test_vfork_stuck), cmocka_unit_test(test_other_tracer),
		cmocka_unit_test(test_dead_leader), cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_kill),
	};

	return cmocka_run_group_tests(tests, target_setup, target_teardown);
}
