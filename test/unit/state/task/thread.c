/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <linux/rseq.h>
#include <pthread.h>
#include <sys/personality.h>
#include <sys/rseq.h>

#define OWN_RSEQ_SIG 0x11223344
#define ADDR_NO_RAND 0x0040000

static struct rseq own_rseq __attribute__((aligned(32)));
static uint64_t tid_word;
static struct {
	uint64_t next, offset, pending;
} robust;
static char altstack[65536];

/* Give back what libc registered, so that one of our own can be. */
static void drop_rseq(void)
{
	struct rseq *r = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);

	if (__rseq_size && syscall(SYS_rseq, r, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG))
		shared[15] = errno;
}

static void run_plain(void)
{
	drop_rseq();
	shared[1] = 1;
	for (;;)
		pause();
}

static void run_special(void)
{
	stack_t stack = {.ss_sp = altstack, .ss_size = sizeof(altstack), .ss_flags = (int)(1U << 31)};

	drop_rseq();
	if (syscall(SYS_rseq, &own_rseq, sizeof(own_rseq), 0, OWN_RSEQ_SIG))
		shared[15] = errno;
	robust.next = (uint64_t)&robust;
	syscall(SYS_set_robust_list, &robust, sizeof(robust));
	syscall(SYS_set_tid_address, &tid_word);
	sigaltstack(&stack, NULL);
	prctl(PR_SET_NAME, "a name \n\xff)");
	prctl(PR_SET_TIMERSLACK, 123456ul);
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	personality(ADDR_NO_RAND);
	shared[0] = 1;
	for (;;)
		pause();
}

static const struct state_kind *const kinds[] = {&kind_thread, NULL};

static void test_move(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct snapshot s;

	memset((void *)shared, 0, 4096);
	pid_t from = start(run_special), to = start(run_plain);

	await(0, 1);
	await(1, 1);
	assert_int_equal(shared[15], 0);
	capture(from, kinds, &s);

	const Ferry__ThreadState *m =
		(void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_THREAD, from, from);

	assert_non_null(m);
	assert_int_equal(m->robust_list, (uint64_t)&robust);
	assert_int_equal(m->clear_child_tid, (uint64_t)&tid_word);
	assert_int_equal(m->rseq_addr, (uint64_t)&own_rseq);
	assert_int_equal(m->rseq_sig, OWN_RSEQ_SIG);
	assert_int_equal(m->altstack_sp, (uint64_t)altstack);
	assert_int_equal(m->altstack_size, sizeof(altstack));
	assert_int_equal(m->altstack_flags, (int)(1U << 31));
	assert_string_equal(m->comm, "a name \n\xff)");
	assert_int_equal(m->timerslack_ns, 123456);
	assert_int_equal(m->personality, ADDR_NO_RAND);
	assert_int_equal(m->mce_kill, PR_MCE_KILL_EARLY);
	snapshot_deinit(&s);

	move_and_compare(from, to, kinds);
	assert_false(error_is(&e));
	finish(from);
	finish(to);
}

static void test_check(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	Ferry__ThreadState m = FERRY__THREAD_STATE__INIT;

	m.comm = "fifteen letters";
	assert_int_equal(kind_thread.check(NULL, 1, 1, &m.base, &e), 0);
	m.comm = "sixteen letters!";
	assert_int_equal(kind_thread.check(NULL, 1, 1, &m.base, &e), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
