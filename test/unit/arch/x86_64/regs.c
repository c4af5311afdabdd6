/* SPDX-License-Identifier: Apache-2.0 */
#include "../../freeze/target.h"

#include "arch/arch.h"

static struct arch_regs in_call(long nr, long code, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct arch_regs r = {.r = {.rip = 0x1002,
				    .orig_rax = (unsigned long)nr,
				    .rax = (unsigned long)code,
				    .rdi = a,
				    .rsi = b,
				    .rdx = c,
				    .r10 = d}};

	return r;
}

static void check(struct arch_regs r, void (*fn)(struct arch_regs *), uint64_t ip, long rax)
{
	fn(&r);
	assert_int_equal(r.r.rip, ip);
	assert_int_equal((long)r.r.rax, rax);
	assert_int_equal((long)r.r.orig_rax, -1);
}

static void test_restart(void **state)
{
	(void)state;
	check(in_call(SYS_read, -512, 0, 0, 0, 0), arch_regs_restart, 0x1000, SYS_read);
	check(in_call(SYS_read, -513, 0, 0, 0, 0), arch_regs_restart, 0x1000, SYS_read);
	check(in_call(SYS_pause, -514, 0, 0, 0, 0), arch_regs_restart, 0x1000, SYS_pause);
	check(in_call(SYS_read, 17, 0, 0, 0, 0), arch_regs_restart, 0x1002, 17);
	check(in_call(SYS_epoll_wait, -EINTR, 0, 0, 0, 0), arch_regs_restart, 0x1002, -EINTR);
	check(in_call(-1, -512, 0, 0, 0, 0), arch_regs_restart, 0x1002, -512);
	check(in_call(SYS_poll, -516, 0, 0, 0, 0), arch_regs_restart, 0x1000, SYS_poll);
	check(in_call(SYS_futex, -516, 0, 0, 0, 0), arch_regs_restart, 0x1000, SYS_futex);
}

static void test_resume(void **state)
{
	(void)state;
	check(in_call(SYS_read, -512, 0, 0, 0, 0), arch_regs_resume, 0x1000, SYS_read);
	check(in_call(SYS_nanosleep, -516, 1, 2, 0, 0), arch_regs_resume, 0x1000, SYS_restart_syscall);
	check(in_call(SYS_read, 17, 0, 0, 0, 0), arch_regs_resume, 0x1002, 17);
	check(in_call(-1, -512, 0, 0, 0, 0), arch_regs_resume, 0x1002, -512);
}

/* Registers of every kind into a thread, and out of it by its own stores. */
static void run_spin(void)
{
	shared[0] = 1;
	__asm__ volatile("1: pause; jmp 1b");
}

static void test_registers(void **state)
{
	(void)state;
	struct arch_regs a, b;
	struct task t;
	struct error e = ERROR_INIT;
	pid_t pid = target_fork(run_spin);

	await(0, 1);
	stop_task(&t, pid, pid);
	assert_int_equal(arch_regs_get(pid, &a), 0);
	assert_true(arch_regs_native(&a));
	assert_false(arch_regs_in_syscall(&a, NULL, NULL));
	struct arch_regs saved = a;

	a.r.rbx = 0x1111;
	a.r.r15 = 0x2222;
	a.r.fs_base = 0x7000;
	a.r.gs_base = 0x8000;
	assert_int_equal(arch_regs_set(pid, &a), 0);
	assert_int_equal(arch_regs_get(pid, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(arch_regs_set(pid, &saved), 0);
	assert_ok(task_release(&t, &e), &e);
	assert_int_equal(arch_regs_get(pid, &a), -ESRCH);
	assert_int_equal(arch_regs_set(pid, &a), -ESRCH);
	target_kill(pid);
}

static void test_xstate(void **state)
{
	(void)state;
	cleanup_free uint8_t *x = NULL, *y = NULL;
	struct task t;
	struct error e = ERROR_INIT;
	uint64_t mask;
	size_t size, n, m;
	pid_t pid = target_fork(run_spin);

	await(0, 1);
	stop_task(&t, pid, pid);
	arch_xstate_features(&mask, &size);
	assert_int_equal(mask & 3, 3);
	assert_int_equal(arch_xstate_get(pid, (void **)&x, &n), 0);
	assert_int_equal(n, size);
	x[512] |= 2; /* xstate_bv: SSE is set */
	for (int i = 0; i < 256; i++)
		x[160 + i] = (uint8_t)(i * 7);
	assert_int_equal(arch_xstate_set(pid, x, n), 0);
	assert_int_equal(arch_xstate_get(pid, (void **)&y, &m), 0);
	assert_int_equal(m, n);
	assert_memory_equal(x + 160, y + 160, 256);
	assert_true(arch_xstate_set(pid, x, 100) < 0);
	assert_ok(task_release(&t, &e), &e);
	void *none = NULL;

	assert_int_equal(arch_xstate_get(pid, &none, &m), -ESRCH);
	target_kill(pid);
}

static void test_find(void **state)
{
	(void)state;
	uint8_t code[64] = {0};

	assert_int_equal(arch_find_syscall(code, sizeof(code)), -1);
	memcpy(code + 62, arch_spin_code, 2);
	assert_int_equal(arch_find_syscall(code, sizeof(code)), 62);
	assert_int_equal(arch_find_syscall(code, 63), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restart),   cmocka_unit_test(test_resume),
		cmocka_unit_test(test_registers), cmocka_unit_test(test_xstate),
		cmocka_unit_test(test_find),
	};

	return cmocka_run_group_tests(tests, target_setup, target_teardown);
}
