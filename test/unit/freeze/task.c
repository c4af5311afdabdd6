/* SPDX-License-Identifier: Apache-2.0 */
#include "target.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/select.h>

#include "procfs/procfs.h"

static int fds[2]; /* a pipe made before the fork */

/* --- interrupted system calls ---------------------------------------------------------------------- */

/* Each sleeps in one call and gives back what the call did. The test wakes the second group after 300 ms. */
static long in_nanosleep(void)
{
	struct timespec ts = {0, 400000000};

	return nanosleep(&ts, NULL);
}
static long in_nanosleep_rest(void)
{
	struct timespec ts = {0, 400000000}, rest;

	return nanosleep(&ts, &rest);
}
static long in_clock_absolute(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += 400000000;
	ts.tv_sec += ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}
static long in_poll_timeout(void)
{
	struct pollfd p = {fds[0], POLLPRI, 0};

	return poll(&p, 1, 400);
}
static long in_select_timeout(void)
{
	struct timeval tv = {0, 400000};

	return select(0, NULL, NULL, NULL, &tv);
}
static long in_futex_timeout(void)
{
	struct timespec ts = {0, 400000000};
	int word = 0;

	return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &ts, NULL, 0) < 0 ? -errno : 1;
}
static long in_epoll_timeout(void)
{
	struct epoll_event ev;
	int r = epoll_wait(epoll_create1(0), &ev, 1, 400);

	return r < 0 ? -errno : r;
}
static long in_read(void)
{
	char c[8];

	return read(fds[0], c, sizeof(c)) < 0 ? -errno : c[0];
}
static long in_poll(void)
{
	struct pollfd p = {fds[0], POLLIN, 0};

	return poll(&p, 1, -1) < 0 ? -errno : p.revents;
}
static long in_futex(void)
{
	return syscall(SYS_futex, &shared[100], FUTEX_WAIT, 0, NULL, NULL, 0) < 0 ? -errno : 1;
}
static long in_epoll(void)
{
	int ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 5};

	epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], &ev);
	int r = epoll_wait(ep, &ev, 1, -1);

	return r < 0 ? -errno : r;
}

static const struct {
	const char *name;
	long (*fn)(void);
	bool woken;
} calls[] = {
	{"nanosleep", in_nanosleep, false},
	{"nanosleep with rest", in_nanosleep_rest, false},
	{"clock_nanosleep absolute", in_clock_absolute, false},
	{"poll with timeout", in_poll_timeout, false},
	{"select with timeout", in_select_timeout, false},
	{"futex with timeout", in_futex_timeout, false},
	{"epoll_wait with timeout", in_epoll_timeout, false},
	{"read", in_read, true},
	{"poll", in_poll, true},
	{"futex", in_futex, true},
	{"epoll_wait", in_epoll, true},
};

static unsigned which;

static void run_call(void)
{
	shared[0] = 1;
	uint64_t start = now_ns();
	long r = calls[which].fn();

	shared[2] = (uint64_t)r;
	shared[3] = now_ns() - start;
	shared[1]++; /* once */
	for (;;)
		pause();
}

enum how { LEFT_ALONE, STOPPED_ONLY, INJECTED };

static void do_call(enum how how, long *ret, uint64_t *ret_ms)
{
	struct error e = ERROR_INIT;
	struct task t;
	int64_t result;

	assert_int_equal(pipe(fds), 0);
	pid_t pid = target_fork(run_call);

	await(0, 1);
	msleep(100);
	if (how != LEFT_ALONE) {
		stop_task(&t, pid, pid);
		if (how == INJECTED) {
			assert_ok(task_save(&t, &e), &e);
			for (int i = 0; i < 3; i++) {
				assert_ok(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
				assert_int_equal(result, pid);
			}
		}
		msleep(150);
		assert_ok(task_release(&t, &e), &e);
	}
	msleep(100);
	if (calls[which].woken) {
		assert_int_equal(write(fds[1], "xyz", 3), 3);
		shared[100] = 1;
		syscall(SYS_futex, &shared[100], FUTEX_WAKE, 1, NULL, NULL, 0);
	}
	await(1, 1);
	*ret = (long)shared[2];
	*ret_ms = shared[3] / 1000000;
	msleep(5);
	assert_int_equal(shared[1], 1);
	target_kill(pid);
	close(fds[0]);
	close(fds[1]);
}

/* With calls of ours in between it ends as it does after a stop alone, and, but for the calls that always
 * return EINTR then, as when nothing had happened. */
static void test_interrupted_calls(void **state)
{
	(void)state;
	for (which = 0; which < ARRAY_SIZE(calls); which++) {
		long plain, stopped, injected;
		uint64_t plain_ms, stopped_ms, injected_ms;
		bool epoll = strstr(calls[which].name, "epoll");

		do_call(LEFT_ALONE, &plain, &plain_ms);
		do_call(STOPPED_ONLY, &stopped, &stopped_ms);
		/* A busy machine may be late once, not each time. */
		for (int tries = 0; tries < 5; tries++) {
			do_call(INJECTED, &injected, &injected_ms);
			if (injected_ms < 640)
				break;
		}
		/* Started again it would take 400 ms more than the 250 until it went on. */
		bool timeout = !calls[which].woken && !epoll;

		if (injected != stopped || (timeout && (injected_ms < 395 || injected_ms > 640)))
			print_error("%s: %ld %ld %ld, %lu %lu %lu ms\n", calls[which].name, plain, stopped,
				    injected, plain_ms, stopped_ms, injected_ms);
		assert_int_equal(injected, stopped);
		if (timeout)
			assert_in_range(injected_ms, 395, 640);
		assert_int_equal(injected, epoll ? -EINTR : plain);
	}
}

/* --- state that must not change -------------------------------------------------------------------- */

static void test_nothing_changes(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	int64_t result;
	pid_t pid = target_fork(run_counter);

	await(0, 1);
	cleanup_free char *maps = slurp("/proc/%d/maps", pid);
	cleanup_free char *status = slurp("/proc/%d/status", pid);

	stop_task(&t, pid, pid);
	assert_ok(task_save(&t, &e), &e);
	struct arch_regs before = t.saved_regs, after;
	uint64_t args[6] = {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, ~0ull, 0};

	assert_ok(task_syscall(&t, SYS_mmap, args, &result, NULL, NULL, &e), &e);
	assert_true(result > 0);
	assert_ok(
		task_syscall(&t, SYS_munmap, (uint64_t[6]){(uint64_t)result, 4096}, &result, NULL, NULL, &e),
		&e);
	assert_int_equal(result, 0);
	assert_ok(task_syscall(&t, SYS_close, (uint64_t[6]){12345}, &result, NULL, NULL, &e), &e);
	assert_int_equal(result, -EBADF);
	assert_ok(task_restore(&t, &e), &e);
	assert_int_equal(arch_regs_get(pid, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
	assert_ok(task_release(&t, &e), &e);
	uint64_t n = shared[0];

	await(0, n + 1);
	cleanup_free char *maps2 = slurp("/proc/%d/maps", pid);
	cleanup_free char *status2 = slurp("/proc/%d/status", pid);

	assert_string_equal(maps, maps2);
	const char *fields[] = {"TracerPid", "SigBlk", "SigPnd", "ShdPnd", "SigCgt", "SigIgn"};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		assert_memory_equal(proc_field(status, fields[i]), proc_field(status2, fields[i]), 16);
	target_kill(pid);
}

/* --- signals --------------------------------------------------------------------------------------- */

static void count_signal(int sig, siginfo_t *si, void *uc)
{
	(void)uc;
	shared[10 + (sig == SIGUSR1 ? 0 : 1)]++;
	if (sig != SIGUSR1)
		shared[20 + shared[30]++] = (uint64_t)si->si_value.sival_int;
}

static void run_signals(void)
{
	struct sigaction sa = {.sa_sigaction = count_signal, .sa_flags = SA_SIGINFO};

	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGRTMIN, &sa, NULL);
	run_counter();
}

static void test_signals_while_held(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	int64_t result;
	pid_t pid = target_fork(run_signals);

	await(0, 1);
	stop_task(&t, pid, pid);
	assert_ok(task_save(&t, &e), &e);
	for (int i = 0; i < 3; i++) {
		kill(pid, SIGUSR1);
		sigqueue(pid, SIGRTMIN, (union sigval){.sival_int = 100 + i});
		assert_ok(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
		assert_int_equal(result, pid);
	}
	assert_int_equal(shared[10] + shared[11], 0);
	assert_ok(task_release(&t, &e), &e);
	await(11, 3);
	await(10, 1);
	msleep(5);
	assert_int_equal(shared[10], 1);
	assert_int_equal(shared[11], 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(shared[20 + i], 100 + i);
	target_kill(pid);
}

/* A signal on its way at the moment of the stop, again and again: none lost, none twice. */
static void test_signals_racing(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	pid_t pid = target_fork(run_signals);

	await(0, 1);
	for (unsigned i = 1; i <= 300; i++) {
		assert_ok(task_seize(&t, pid, pid, false, &e), &e);
		kill(pid, SIGUSR1);
		assert_ok(task_interrupt(&t, &e), &e);
		assert_int_equal(task_wait_stopped(&t, 5000, &e), 0);
		assert_ok(task_save(&t, &e), &e);
		int64_t result;

		assert_ok(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
		assert_ok(task_release(&t, &e), &e);
		await(10, i);
		assert_int_equal(shared[10], i);
	}
	target_kill(pid);
}

static char state_of(pid_t pid)
{
	struct error e = ERROR_INIT;
	struct proc_stat s;

	return proc_stat_read(pid, 0, &s, &e) < 0 ? '-' : s.state;
}

/* SIGSTOP sent while we hold it, between our calls, takes effect; SIGCONT takes it back. */
static void test_stop_while_held(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	int64_t result;
	int status;
	pid_t pid = target_fork(run_counter);

	for (int cont = 0; cont < 2; cont++) {
		await(0, 1);
		stop_task(&t, pid, pid);
		assert_ok(task_save(&t, &e), &e);
		assert_ok(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
		kill(pid, SIGSTOP);
		assert_ok(task_syscall(&t, SYS_getppid, NULL, &result, NULL, NULL, &e), &e);
		assert_int_equal(result, getpid());
		if (cont)
			kill(pid, SIGCONT);
		assert_ok(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
		assert_int_equal(result, pid);
		assert_ok(task_release(&t, &e), &e);
		uint64_t n = shared[0];

		if (cont) {
			await(0, n + 1000);
			continue;
		}
		assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
		assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
		for (int i = 0; i < 1000 && state_of(pid) != 'T'; i++)
			msleep(1); /* the stop was complete while we held it; now the thread gets there */
		assert_int_equal(state_of(pid), 'T');
		kill(pid, SIGCONT);
		await(0, shared[0] + 1000);
	}
	target_kill(pid);
}

static void test_killed_while_held(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	int64_t result;
	pid_t pid = target_fork(run_counter);

	await(0, 1);
	stop_task(&t, pid, pid);
	assert_ok(task_save(&t, &e), &e);
	kill(pid, SIGKILL);
	msleep(5);
	assert_int_equal(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), -ESRCH);
	assert_int_equal(t.state, TASK_GONE);
	assert_int_equal(task_release(&t, &e), 0);
	assert_false(error_is(&e));
	assert_int_equal(task_seize(&t, pid, pid, false, &e), -ESRCH);
	assert_false(error_is(&e));
}

/* --- awkward targets ------------------------------------------------------------------------------- */

static void run_filtered(void)
{
	/* Sanitizers call sigaltstack before an endless loop. */
	struct sock_filter all_killed_but_one[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sigaltstack, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = {ARRAY_SIZE(all_killed_but_one), all_killed_but_one};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0)
		run_counter();
	shared[50] = errno;
}

static void test_seccomp(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	int64_t result;
	pid_t pid = target_fork(run_filtered);

	await(0, 1);
	stop_task(&t, pid, pid);
	assert_ok(task_save(&t, &e), &e);
	assert_ok(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
	assert_int_equal(result, pid);
	assert_ok(task_release(&t, &e), &e);
	uint64_t n = shared[0];

	await(0, n + 1000);
	target_kill(pid);
}

static void test_not_stopped(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	int64_t result;
	pid_t pid = target_fork(run_counter);

	await(0, 1);
	assert_ok(task_seize(&t, pid, pid, false, &e), &e);
	assert_int_equal(task_save(&t, &e), -EBUSY);
	error_clear(&e);
	assert_int_equal(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), -EBUSY);
	error_clear(&e);
	assert_ok(task_release(&t, &e), &e);
	uint64_t n = shared[0];

	await(0, n + 1000);
	target_kill(pid);
}

static void adopted(void *ctx, pid_t child)
{
	*(pid_t *)ctx = child;
}

static void test_child_of_skeleton(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t, c;
	int64_t result;
	pid_t child = 0, pid = target_fork(run_pause);

	await(0, 1);
	assert_ok(task_seize(&t, pid, pid, true, &e), &e);
	assert_ok(task_interrupt(&t, &e), &e);
	assert_int_equal(task_wait_stopped(&t, 5000, &e), 0);
	assert_ok(task_syscall(&t, SYS_fork, NULL, &result, adopted, &child, &e), &e);
	assert_true(child > 0);
	assert_int_equal(result, child);
	task_adopt(&c, child, child, true);
	assert_ok(task_syscall(&t, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
	assert_int_equal(result, pid);
	assert_ok(task_syscall(&c, SYS_getppid, NULL, &result, NULL, NULL, &e), &e);
	assert_int_equal(result, pid);
	kill(child, SIGKILL);
	target_kill(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interrupted_calls),
		cmocka_unit_test(test_nothing_changes),
		cmocka_unit_test(test_signals_while_held),
		cmocka_unit_test(test_signals_racing),
		cmocka_unit_test(test_stop_while_held),
		cmocka_unit_test(test_killed_while_held),
		cmocka_unit_test(test_seccomp),
		cmocka_unit_test(test_not_stopped),
		cmocka_unit_test(test_child_of_skeleton),
	};

	return cmocka_run_group_tests(tests, target_setup, target_teardown);
}
