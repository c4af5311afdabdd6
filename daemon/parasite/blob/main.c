/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parasite.  Runs in the target's address space without a libc: waits for a batch, runs it, tells the
 * host, waits again.  See parasite/abi.h; the host side is parasite/region.c.
 */
#include <stddef.h>
#include <stdint.h>
#include <linux/futex.h>
#include <linux/time_types.h>
#include <asm/unistd.h>

#include "parasite/abi.h"

#define EINTR_    4
#define EINVAL_   22
#define ENOSYS_   38
#define MONOTONIC 1
#define SETMASK   2

int64_t pb_syscall(long nr, const uint64_t args[6]);
_Noreturn void pb_cure(uint64_t frame);

/* Tells the host that this file belongs to it. */
__attribute__((section(".pb_ident"), used)) const uint32_t pb_ident[2] = {PB_MAGIC, PB_VERSION};

/* The compiler may call these two for structure copies. */
void *memcpy(void *dst, const void *src, size_t n)
{
	void *ret = dst;

	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
	return ret;
}

void *memset(void *dst, int c, size_t n)
{
	void *ret = dst;

	__asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(c) : "memory");
	return ret;
}

#define call(nr, ...) pb_syscall(nr, (const uint64_t[6]){__VA_ARGS__})

static int is_error(int64_t result)
{
	return result < 0 && result >= -4095;
}

/* --- batches ------------------------------------------------------------------------------------- */

static int fetch_args(const struct pb_batch *b, const struct pb_entry *entries, uint32_t index,
		      uint64_t region, uint64_t args[6])
{
	const struct pb_entry *e = &entries[index];

	for (int i = 0; i < 6; i++) {
		args[i] = e->args[i];
		if (e->kinds[i] == PB_ARG_CONST)
			continue;
		if (e->kinds[i] == PB_ARG_ARENA && args[i] <= b->data_size)
			args[i] += region + b->data;
		else if (e->kinds[i] == PB_ARG_RESULT && args[i] < index)
			args[i] = entries[args[i]].result;
		else
			return -1;
	}
	return 0;
}

static int64_t store(uint64_t addr, uint64_t value, uint64_t width)
{
	if (width == 4)
		*(volatile uint32_t *)addr = (uint32_t)value;
	else if (width == 8)
		*(volatile uint64_t *)addr = value;
	else
		return -EINVAL_;
	return (int64_t)width;
}

static int64_t load(uint64_t addr, uint64_t width, int *bad)
{
	if (width == 4)
		return *(volatile uint32_t *)addr;
	if (width == 8)
		return *(volatile int64_t *)addr;
	*bad = 1;
	return -EINVAL_;
}

/* Returns 1 if the entry itself is wrong: then its result counts as a failure whatever is acceptable. */
static int run_entry(struct pb_entry *e, const uint64_t args[6])
{
	int bad = 0;

	switch (e->op) {
	case PB_OP_SYSCALL:
		e->result = pb_syscall(e->nr, args);
		break;
	case PB_OP_REPEAT_EINTR:
		do
			e->result = pb_syscall(e->nr, args);
		while (e->result == -EINTR_);
		break;
	case PB_OP_COPY:
		memcpy((void *)args[0], (const void *)args[1], args[2]);
		e->result = (int64_t)args[2];
		break;
	case PB_OP_STORE:
		e->result = store(args[0], args[1], args[2]);
		bad = e->result < 0;
		break;
	case PB_OP_LOAD:
		e->result = load(args[0], args[1], &bad);
		break;
	case PB_OP_ADD:
		e->result = (int64_t)(args[0] + args[1]);
		break;
	default:
		e->result = -ENOSYS_;
		bad = 1;
	}
	return bad;
}

static int acceptable(const struct pb_entry *e)
{
	switch (e->accept) {
	case PB_ACCEPT_NONNEG:
		/* A loaded or added word may look like an errno and is not one. */
		return e->op == PB_OP_LOAD || e->op == PB_OP_ADD || !is_error(e->result);
	case PB_ACCEPT_ANY:
		return 1;
	case PB_ACCEPT_EQUAL:
		return e->result == e->accept_value;
	case PB_ACCEPT_OR:
		return !is_error(e->result) || e->result == -e->accept_value;
	default:
		return 0;
	}
}

static void keep_undo_list(struct pb_mailbox *m, const struct pb_entry *e, const uint64_t args[6])
{
	if ((e->flags & PB_FLAG_OPENS_FD) && e->result >= 0 && m->n_undo_fds < PB_UNDO_FDS) {
		m->undo_fds[m->n_undo_fds] = (int32_t)e->result;
		__atomic_store_n(&m->n_undo_fds, m->n_undo_fds + 1, __ATOMIC_RELEASE);
	}
	if (e->op == PB_OP_SYSCALL && e->nr == __NR_close)
		for (uint32_t i = 0; i < m->n_undo_fds; i++)
			if (m->undo_fds[i] == (int32_t)args[0])
				m->undo_fds[i] = -1;
	while (m->n_undo_fds && m->undo_fds[m->n_undo_fds - 1] < 0)
		m->n_undo_fds--;
}

static int host_died(uint32_t word)
{
	return (word & FUTEX_OWNER_DIED) || !(word & FUTEX_TID_MASK);
}

/* No call may be made any more: nobody holds the thread's filter back. */
static int must_be_quiet(const struct pb_mailbox *m, const uint32_t *host)
{
	return m->host == PB_HOST_GUARDED && host_died(__atomic_load_n(host, __ATOMIC_ACQUIRE));
}

static void run_batch(struct pb_mailbox *m, struct pb_batch *b, uint64_t region, const uint32_t *host)
{
	struct pb_entry *entries = (struct pb_entry *)(region + b->entries);
	uint64_t args[6];

	b->failed = 0;
	for (b->n_done = 0; b->n_done < b->n_entries; b->n_done++) {
		struct pb_entry *e = &entries[b->n_done];
		if (must_be_quiet(m, host)) {
			b->failed = 1;
			return;
		}
		int bad = fetch_args(b, entries, b->n_done, region, args);

		if (bad)
			e->result = -EINVAL_;
		else
			bad = run_entry(e, args);
		if (!bad)
			keep_undo_list(m, e, args);
		if (bad || !acceptable(e)) {
			b->failed = 1;
			return;
		}
	}
}

/* --- waiting ------------------------------------------------------------------------------------- */

static void futex_wake(uint32_t *word)
{
	call(__NR_futex, (uint64_t)word, FUTEX_WAKE, INT32_MAX);
}

/* Nobody has come for us: undo what can be undone from here and let the target go on. */
static _Noreturn void cure(const struct pb_mailbox *m)
{
	for (uint32_t i = 0; i < m->n_undo_fds && i < PB_UNDO_FDS; i++)
		call(__NR_close, (uint64_t)m->undo_fds[i]);
	call(__NR_rt_sigprocmask, SETMASK, (uint64_t)&m->mask, 0, 8);
	pb_cure(m->frame);
}

/* futex_waitv only: interrupted, it leaves the restart block of the target's own call alone, with a timeout
 * too. */
static void wait_for_supervisor(struct pb_mailbox *m, uint32_t *host)
{
	struct __kernel_timespec now;
	uint32_t word;

	/* Whoever comes takes the thread out of this loop. After it what can be done is done: without it the
	 * thread would never run again. */
	if (m->host == PB_HOST_GUARDED)
		for (uint64_t i = 0; i < PB_GRACE_SPINS; i++)
			if (!host_died(__atomic_load_n(host, __ATOMIC_ACQUIRE)))
				return;
	/* The kernel woke one of us; there is one word for all threads. */
	futex_wake(host);
	call(__NR_clock_gettime, MONOTONIC, (uint64_t)&now);
	now.tv_sec += PB_GRACE_MS / 1000;
	while (host_died(word = __atomic_load_n(host, __ATOMIC_ACQUIRE))) {
		struct futex_waitv w = {word, (uint64_t)host, FUTEX_32, 0};

		if (call(__NR_futex_waitv, (uint64_t)&w, 1, 0, (uint64_t)&now, MONOTONIC) ==
		    -110) /* ETIMEDOUT */
			cure(m);
	}
}

static void wait_for_batch(struct pb_mailbox *m, uint32_t *host, uint32_t seen)
{
	if (!m->host) {
		call(__NR_futex, (uint64_t)&m->seq, FUTEX_WAIT, seen, 0);
		return;
	}
	uint32_t word = __atomic_load_n(host, __ATOMIC_ACQUIRE);

	if (host_died(word)) {
		wait_for_supervisor(m, host);
		return;
	}
	struct futex_waitv w[2] = {
		{seen, (uint64_t)&m->seq, FUTEX_32, 0},
		{word, (uint64_t)host, FUTEX_32, 0},
	};
	call(__NR_futex_waitv, (uint64_t)w, 2, 0, 0, 0);
}

/* Until the thread is taken back. */
static _Noreturn void rest(struct pb_mailbox *m, uint32_t *host)
{
	for (;;)
		if (must_be_quiet(m, host))
			wait_for_supervisor(m, host);
}

_Noreturn void pb_main(struct pb_mailbox *m)
{
	uint64_t region = m->region;
	uint32_t *host = &((struct pb_header *)(region + PB_CODE_MAX))->host;
	uint32_t seen = m->done;

	for (;;) {
		uint32_t seq;

		while ((seq = __atomic_load_n(&m->seq, __ATOMIC_ACQUIRE)) == seen)
			wait_for_batch(m, host, seen);
		seen = seq;
		if (m->batch == PB_REST) {
			__atomic_store_n(&m->done, seq, __ATOMIC_RELEASE);
			rest(m, host);
		}
		run_batch(m, (struct pb_batch *)(region + m->batch), region, host);
		__atomic_store_n(&m->done, seq, __ATOMIC_RELEASE);
		if (!must_be_quiet(m, host))
			futex_wake(&m->done);
	}
}
