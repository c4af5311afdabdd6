/* SPDX-License-Identifier: Apache-2.0 */
/* Pending signals together with actions, whose setting could throw them away. */
#include "fixture.h"

#include <pthread.h>
#include <sys/resource.h>

static const struct state_kind *const kinds[] = {&kind_sigactions, &kind_sigpending, &kind_limits, NULL};

static void block_all(void)
{
	sigset_t all;

	sigfillset(&all);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
}

static void *second(void *arg)
{
	(void)arg;
	shared[1]++;
	for (;;)
		pause();
	return NULL;
}

static pid_t second_tid(pid_t pid)
{
	struct side s;

	side_list(&s, pid);
	assert_int_equal(s.p.n_threads, 2);
	return s.threads[1].task.tid;
}

/* The one that has nothing: but for an ignored signal, as the daemon may have. */
static void run_plain(void)
{
	pthread_t t;

	signal(SIGUSR1, SIG_IGN);
	block_all();
	pthread_create(&t, NULL, second, NULL);
	shared[0]++;
	for (;;)
		pause();
}

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
}

static void queue(pid_t pid, pid_t tid, int sig, int code, int value)
{
	siginfo_t i = {.si_signo = sig, .si_code = code};

	i.si_pid = 4711;
	i.si_uid = 7;
	i.si_value.sival_int = value;
	if (tid)
		assert_int_equal(syscall(SYS_rt_tgsigqueueinfo, pid, tid, sig, &i), 0);
	else
		assert_int_equal(syscall(SYS_rt_sigqueueinfo, pid, sig, &i), 0);
}

static void run_special(void)
{
	struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	struct rlimit limit = {2, 1000};
	pthread_t t;

	sigaddset(&a.sa_mask, SIGHUP);
	sigaddset(&a.sa_mask, SIGRTMIN + 3);
	sigaction(SIGUSR1, &a, NULL);
	sigaction(SIGRTMAX, &a, NULL);
	signal(SIGUSR2, SIG_IGN);
	a = (struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
	sigaction(SIGCHLD, &a, NULL);
	block_all();
	pthread_create(&t, NULL, second, NULL);
	while (shared[2] == 0)
		msleep(1);
	setrlimit(RLIMIT_SIGPENDING, &limit);
	shared[0]++;
	for (;;)
		pause();
}

static void test_move(void **state)
{
	(void)state;
	struct snapshot s;

	memset((void *)shared, 0, 4096);
	pid_t to = start(run_plain);

	await(0, 1);
	await(1, 1);
	pid_t from = start(run_special);

	await(1, 2);
	pid_t tid = second_tid(from);

	/* In the process: ignored by default but blocked; three of one number; the number of the tokens. */
	queue(from, 0, SIGCHLD, SI_QUEUE, 1);
	queue(from, 0, SIGRTMIN + 1, SI_QUEUE, 2);
	queue(from, 0, SIGRTMIN + 1, SI_TIMER, 3);
	queue(from, 0, SIGRTMIN + 1, SI_MESGQ, 4);
	queue(from, 0, 64, SI_QUEUE, 5);
	kill(from, SIGUSR2);
	/* In each thread. */
	queue(from, from, 64, SI_QUEUE, 6);
	queue(from, from, SIGTERM, SI_QUEUE, 7);
	queue(from, tid, SIGCHLD, SI_QUEUE, 8);
	queue(from, tid, 64, SI_QUEUE, 9);
	queue(from, tid, 64, SI_QUEUE, 10);
	syscall(SYS_tgkill, from, tid, SIGUSR2);
	syscall(SYS_tgkill, from, tid, SIGUSR1);
	shared[2] = 1;
	await(0, 2);

	capture(from, kinds, &s);
	const Ferry__SigPending *m =
		(void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_SIGPENDING, from, from);

	assert_int_equal(m->n_shared, 6);
	assert_int_equal(m->n_own, 2);
	m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_SIGPENDING, from, tid);
	assert_int_equal(m->n_own, 5);
	assert_int_equal(m->n_shared, 0);

	const siginfo_t *first = (void *)m->own[0].data;

	assert_int_equal(first->si_signo, SIGCHLD);
	assert_int_equal(first->si_pid, 4711);
	assert_int_equal(first->si_value.sival_int, 8);
	snapshot_deinit(&s);

	/* Several times: the threads of the destination race. */
	for (int i = 0; i < 10; i++) {
		if (i) {
			finish(to);
			shared[0] = shared[1] = 0;
			to = start(run_plain);
			await(0, 1);
			await(1, 1);
		}
		move_and_compare(from, to, kinds);
	}
	finish(from);
	finish(to);
}

static void stopped(struct side *s)
{
	(void)s;
}

/* A pending SIGSTOP does not get in the way of anything, and stops the process in the end. */
static void test_stop(void **state)
{
	(void)state;
	siginfo_t stop = {.si_signo = SIGSTOP, .si_code = SI_USER};
	Ferry__SigPending m = FERRY__SIG_PENDING__INIT;
	ProtobufCBinaryData data = {sizeof(stop), (uint8_t *)&stop};
	struct snapshot s = {0};
	int status;

	memset((void *)shared, 0, 4096);
	pid_t to = start(run_plain);

	await(0, 1);
	await(1, 1);
	m.shared = &data;
	m.n_shared = 1;
	Ferry__SigPending *copy;
	uint8_t buf[512];

	copy = ferry__sig_pending__unpack(NULL, ferry__sig_pending__pack(&m, buf), buf);
	snapshot_put(&s, FERRY__RECORD_TYPE__RECORD_SIGPENDING, to, to, &copy->base);
	apply(to, kinds, &s, stopped);
	assert_int_equal(waitpid(to, &status, WUNTRACED), to);
	assert_true(WIFSTOPPED(status));
	snapshot_deinit(&s);
	finish(to);
}

static void test_check(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	siginfo_t info = {.si_signo = SIGKILL};
	Ferry__SigPending m = FERRY__SIG_PENDING__INIT;
	ProtobufCBinaryData data = {sizeof(info), (uint8_t *)&info};

	m.own = &data;
	m.n_own = 1;
	assert_int_equal(kind_sigpending.check(NULL, 1, 1, &m.base, &e), -EPROTO);
	data.len = 20;
	error_clear(&e);
	assert_int_equal(kind_sigpending.check(NULL, 1, 1, &m.base, &e), -EPROTO);
	assert_non_null(strstr(e.text, "20 bytes"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
