/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every register there is.  A child loads known values into all of them and spins on a word of shared memory;
 * another child gets its registers, leaves the loop and writes down what it finds.
 */
#include "fixture.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <linux/rseq.h>
#include <linux/seccomp.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/uio.h>

#include "arch/arch.h"

static const struct state_kind *const kinds[] = {&kind_regs, NULL};
static const struct state_kind *const with_thread[] = {&kind_thread, &kind_regs, NULL};

#define XSTATE_MAX 16384

/* The start of shared memory, as the code below has it. */
struct page {
	uint64_t go;      /* 0 */
	uint64_t gpr[16]; /* 8: rax rbx rcx rdx rsi rdi rbp r8-r14, then rsp and flags */
	uint64_t mask;    /* 136: components of xsave */
	uint64_t ready;   /* 144 */
	uint8_t pad[4096 - 152];
	uint8_t in[XSTATE_MAX];  /* 4096 */
	uint8_t out[XSTATE_MAX]; /* 20480 */
};

/* rdi: struct page. Does not return, uses no stack. */
__asm__("	.pushsection .text\n"
	".globl known_values\n"
	"known_values:\n"
	"	mov	%rdi, %r15\n"
	"	mov	136(%r15), %eax\n"
	"	mov	140(%r15), %edx\n"
	"	xrstor64 4096(%r15)\n"
	"	mov	$0x1111111111111111, %rbx\n"
	"	mov	$0x2222222222222222, %rcx\n"
	"	mov	$0x3333333333333333, %rdx\n"
	"	mov	$0x4444444444444444, %rsi\n"
	"	mov	$0x5555555555555555, %rdi\n"
	"	mov	$0x6666666666666666, %rbp\n"
	"	mov	$0x7777777777777777, %r8\n"
	"	mov	$0x8888888888888888, %r9\n"
	"	mov	$0x9999999999999999, %r10\n"
	"	mov	$0xaaaaaaaaaaaaaaaa, %r11\n"
	"	mov	$0xbbbbbbbbbbbbbbbb, %r12\n"
	"	mov	$0xcccccccccccccccc, %r13\n"
	"	mov	$0xdddddddddddddddd, %r14\n"
	"	mov	$0x0eeeeeeeeeeeeee8, %rsp\n"
	"	mov	$0xf0f0f0f0f0f0f0f0, %rax\n"
	"	std\n"
	"	movq	$1, 144(%r15)\n"
	"1:	cmpq	$0, (%r15)\n"
	"	je	1b\n"
	"	mov	%rax, 8(%r15)\n"
	"	mov	%rbx, 16(%r15)\n"
	"	mov	%rcx, 24(%r15)\n"
	"	mov	%rdx, 32(%r15)\n"
	"	mov	%rsi, 40(%r15)\n"
	"	mov	%rdi, 48(%r15)\n"
	"	mov	%rbp, 56(%r15)\n"
	"	mov	%r8, 64(%r15)\n"
	"	mov	%r9, 72(%r15)\n"
	"	mov	%r10, 80(%r15)\n"
	"	mov	%r11, 88(%r15)\n"
	"	mov	%r12, 96(%r15)\n"
	"	mov	%r13, 104(%r15)\n"
	"	mov	%r14, 112(%r15)\n"
	"	mov	%rsp, 120(%r15)\n"
	"	mov	136(%r15), %eax\n"
	"	mov	140(%r15), %edx\n"
	"	xsave64	20480(%r15)\n"
	"	lea	128(%r15), %rsp\n" /* room for the flags */
	"	add	$8, %rsp\n"
	"	pushf\n"
	"	mov	$60, %eax\n"
	"	xor	%edi, %edi\n"
	"	syscall\n"
	"	.popsection\n");
void known_values(struct page *p);

static struct page *page;

static void run_known(void)
{
	sigset_t some;

	sigemptyset(&some);
	sigaddset(&some, SIGUSR1);
	sigaddset(&some, SIGRTMIN + 20);
	sigprocmask(SIG_SETMASK, &some, NULL);
	syscall(SYS_arch_prctl, ARCH_SET_GS, 0x123456789000);
	known_values(page);
}

static void run_plain(void)
{
	for (;;)
		pause();
}

/* Random, but nothing that would trap: all exceptions masked, numbers are numbers. */
static void fill_xstate(uint8_t *x, size_t size, uint64_t mask)
{
	unsigned a, b, c, d;

	srandom(4711);
	for (size_t i = 0; i < size; i++)
		x[i] = random();
	memset(x, 0, 32);
	x[0] = 0x7f; /* control word: rounding down, all masked */
	x[1] = 0x07;
	x[2] = 0x00; /* status word: top of stack is 5 */
	x[3] = 0x28;
	x[4] = 0xff;  /* all eight in use */
	x[24] = 0x80; /* mxcsr: all masked, rounding to zero */
	x[25] = 0x7f;
	memset(x + 28, 0xff, 2);
	for (int i = 0; i < 8; i++) { /* 80-bit numbers in 16-byte places */
		x[32 + i * 16 + 7] |= 0x80;
		x[32 + i * 16 + 8] = 0x01 + i;
		x[32 + i * 16 + 9] = 0x40;
		memset(x + 32 + i * 16 + 10, 0, 6);
	}
	memset(x + 416, 0, 96);
	memset(x + 512, 0, 64);
	memcpy(x + 512, &mask, 8);
	/* Between the components: zero, as it is saved. */
	for (size_t at = 576; at < size; at++) {
		bool used = false;

		for (unsigned i = 2; i < 63; i++) {
			if (!(mask >> i & 1))
				continue;
			__cpuid_count(0xd, i, a, b, c, d);
			used |= at >= b && at < b + a;
		}
		if (!used)
			x[at] = 0;
	}
}

static struct arch_regs regs_at_start;

static void compare_regs(struct side *s)
{
	struct error e = ERROR_INIT;
	struct proc_status status;
	struct arch_regs now;

	assert_int_equal(arch_regs_get(s->p.pid, &now), 0);
	assert_memory_equal(&now, &regs_at_start, sizeof(now));
	assert_true(now.r.gs_base == 0x123456789000);
	assert_ok(proc_status_read(s->p.pid, 0, &status, &e), &e);
	assert_true(status.sig_blk == (1ull << (SIGUSR1 - 1) | 1ull << (SIGRTMIN + 20 - 1)));
	proc_status_deinit(&status);
}

static void test_all_registers(void **state)
{
	(void)state;
	struct snapshot s;
	uint64_t features;
	size_t size;

	page = (struct page *)shared;
	memset(page, 0, sizeof(*page));
	arch_xstate_features(&features, &size);
	assert_true(size <= XSTATE_MAX);
	page->mask = features & 0xe7; /* without protection keys, which would lock us out */
	fill_xstate(page->in, size, page->mask);

	pid_t from = start(run_known), to = start(run_plain);

	for (int n = 0; !page->ready; n++) {
		assert_int_equal(waitpid(from, NULL, WNOHANG), 0);
		assert_true(n < 10000);
		msleep(1);
	}
	capture(from, kinds, &s);

	const Ferry__Regs *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_REGS, from, from);

	assert_int_equal(m->xstate.len, size);
	assert_false(m->in_syscall);
	memcpy(&regs_at_start, m->general.data, sizeof(regs_at_start));
	finish(from);
	apply(to, kinds, &s, compare_regs);
	page->go = 1;

	int status;

	assert_int_equal(waitpid(to, &status, 0), to);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(page->gpr[0] == 0xf0f0f0f0f0f0f0f0);
	for (unsigned i = 1; i < 14; i++)
		assert_true(page->gpr[i] == i * 0x1111111111111111u);
	assert_true(page->gpr[14] == 0x0eeeeeeeeeeeeee8);
	assert_true(page->gpr[15] & 0x400); /* direction */
	/* Bytes 28 to 31 are no state: MXCSR_MASK, which bits of MXCSR the processor has. */
	assert_memory_equal(page->out, page->in, 28);
	assert_memory_equal(page->out + 32, page->in + 32, 416 - 32);
	assert_memory_equal(page->out + 512, page->in + 512, size - 512);
	if (!(page->mask & 0xe0))
		print_message("no AVX-512 here\n");
	snapshot_deinit(&s);
}

/* --- rseq ------------------------------------------------------------------------------------------------
 */
#define OWN_RSEQ_SIG 0x55667788
static struct rseq own_rseq __attribute__((aligned(32)));
void rseq_start(void *aborted, void *area);
extern char rseq_begin[], rseq_end[], rseq_abort[];
extern struct rseq_cs rseq_sequence;

/* Spins inside of a restartable sequence; when that is aborted, sets *rdi to 1 and exits. */
__asm__(".globl rseq_start, rseq_begin, rseq_end, rseq_abort, rseq_sequence\n"
	"	.pushsection .data\n"
	"	.balign 32\n"
	"rseq_sequence:\n"
	"	.long	0, 0\n"
	"	.quad	rseq_begin, rseq_end - rseq_begin, rseq_abort\n"
	"	.popsection\n"
	"	.pushsection .text\n"
	"rseq_start:\n"
	"	lea	rseq_sequence(%rip), %rax\n"
	"	mov	%rax, 8(%rsi)\n"
	"rseq_begin:\n"
	"	pause\n"
	"	jmp	rseq_begin\n"
	"rseq_end:\n"
	"	ud2\n"
	"	.long	0x55667788\n"
	"rseq_abort:\n"
	"	incq	(%rdi)\n"
	"1:	pause\n"
	"	jmp	1b\n"
	"	.popsection\n");

static void own_rseq_only(void)
{
	struct rseq *r = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);

	if (__rseq_size && syscall(SYS_rseq, r, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG))
		shared[15] = errno;
}

static void run_without_rseq(void)
{
	own_rseq_only();
	shared[11] = 1;
	for (;;)
		pause();
}

/* A thread moved in the middle of a sequence has it aborted at the destination. The kernel aborts one at each
 * preemption, so the source cannot wait inside: the record is made up. */
static void test_rseq(void **state)
{
	(void)state;
	struct snapshot s;

	memset((void *)shared, 0, 4096);
	pid_t from = start(run_without_rseq), to;

	await(11, 1);
	capture(from, with_thread, &s);
	finish(from);
	shared[11] = 0;
	to = start(run_without_rseq);
	await(11, 1);

	Ferry__ThreadState *t = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_THREAD, from, from);
	Ferry__Regs *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_REGS, from, from);
	struct arch_regs regs;

	t->rseq_addr = (uint64_t)&own_rseq;
	t->rseq_len = sizeof(own_rseq);
	t->rseq_sig = OWN_RSEQ_SIG;
	memcpy(&regs, m->general.data, sizeof(regs));
	regs.r.rip = (uint64_t)rseq_begin;
	regs.r.rdi = (uint64_t)&shared[12];
	regs.r.orig_rax = -1;
	memcpy(m->general.data, &regs, sizeof(regs));
	m->in_syscall = false;
	m->rseq_cs = (uint64_t)&rseq_sequence;
	apply(to, with_thread, &s, NULL);
	await(12, 1);
	msleep(20);
	assert_int_equal(shared[12], 1);
	assert_int_equal(shared[15], 0);
	snapshot_deinit(&s);
	finish(to);
}

/* --- check -----------------------------------------------------------------------------------------------
 */
static void test_check(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct arch_regs regs = {0};
	uint64_t features, used;
	size_t size;

	arch_xstate_features(&features, &size);
	cleanup_free uint8_t *x = xcalloc(1, size + 64);
	Ferry__Regs m = FERRY__REGS__INIT;

	m.general = (ProtobufCBinaryData){sizeof(regs), (uint8_t *)&regs};
	m.xstate = (ProtobufCBinaryData){size, x};
	memcpy(x + 512, &features, 8);
	assert_int_equal(kind_regs.check(NULL, 1, 1, &m.base, &e), 0);

	used = 1ull << 18; /* AMX tiles, unless this machine has them */
	if (!(features & used)) {
		memcpy(x + 512, &used, 8);
		assert_int_equal(kind_regs.check(NULL, 1, 1, &m.base, &e), -EOPNOTSUPP);
		assert_non_null(strstr(e.text, "AMX"));
		error_clear(&e);
	}
	/* Another size: only what has a fixed place. */
	m.xstate.len = size + 64;
	memcpy(x + 512, &(uint64_t){3}, 8);
	assert_int_equal(kind_regs.check(NULL, 1, 1, &m.base, &e), 0);
	if (features & 0x20) {
		memcpy(x + 512, &(uint64_t){0x23}, 8);
		assert_int_equal(kind_regs.check(NULL, 1, 1, &m.base, &e), -EOPNOTSUPP);
		error_clear(&e);
	}
	m.xstate.len = 100;
	assert_int_equal(kind_regs.check(NULL, 1, 1, &m.base, &e), -EOPNOTSUPP);
	error_clear(&e);
	m.general.len = 8;
	assert_int_equal(kind_regs.check(NULL, 1, 1, &m.base, &e), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_registers),
		cmocka_unit_test(test_rseq),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
