/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that run batches: start, post, wait, stop. */
#include "parasite/internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/util.h"
#include "freeze/rescue.h"

#define SPINS    400           /* before sleeping: most batches take microseconds */
#define LOOK_NS  20000000      /* how often a waiting host looks whether the thread is all right */
#define ABORT_NS 2000000000ull /* a batch in progress when the job is cancelled may take this long */
#define STOP_MS  10000
#define REST_MS  10 /* for a thread to get out of its call */

static int futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return (int)syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

struct task *runner_task(const struct runner *w)
{
	return w->task;
}

/* --- start and stop ------------------------------------------------------------------------------ */

static size_t slot_offset(const struct region *r, size_t slot)
{
	return r->size - (slot + 1) * SLOT_SIZE;
}

static int take_slot(struct region *r, size_t *ret, struct error *e)
{
	for (size_t i = 0; i < r->n_slots && slot_offset(r, i) >= r->arena; i++)
		if (!r->slots[i]) {
			r->slots[i] = 1;
			*ret = i;
			return 0;
		}
	return error_say(e, ENOSPC, "pid %d: the parasite has no room for one more thread", r->pid);
}

static size_t arena_end(const struct region *r)
{
	size_t i = r->n_slots;

	while (i > 0 && !r->slots[i - 1])
		i--;
	return i ? slot_offset(r, i - 1) : r->size;
}

/* Inside a restartable sequence at the stop: it must not go on in its middle after our code has run. */
static void leave_rseq(const struct task *t, struct arch_regs *regs)
{
	long word[4]; /* version+flags, start_ip, post_commit_offset, abort_ip */
	uint64_t ip = arch_regs_ip(regs);

	if (!t->saved_rseq_cs)
		return;
	for (unsigned i = 0; i < 4; i++) {
		errno = 0;
		word[i] = ptrace(PTRACE_PEEKDATA, t->tid, t->saved_rseq_cs + i * 8, NULL);
		if (errno)
			return;
	}
	if (ip - (uint64_t)word[1] < (uint64_t)word[2])
		arch_regs_set_ip(regs, (uint64_t)word[3]);
}

static void prepare_mailbox(struct runner *w)
{
	struct region *r = w->region;
	size_t top = slot_offset(r, w->slot) + SLOT_SIZE - SLOT_TOP;
	struct task *t = w->task;

	w->mailbox = (struct pb_mailbox *)(r->map + top);
	memset(w->mailbox, 0, sizeof(*w->mailbox));
	w->mailbox->region = r->addr;
	if (r->skeleton)
		return;
	struct arch_regs back = t->saved_regs;
	size_t frame = top - ARCH_CURE_SIZE;

	leave_rseq(t, &back);
	arch_regs_resume(&back);
	arch_cure_frame(r->map + frame, r->addr + frame, &back);
	w->mailbox->frame = r->addr + frame;
	w->mailbox->mask = t->saved_mask;
	w->mailbox->host = t->filtered ? PB_HOST_GUARDED : PB_HOST;
}

static int enter(struct runner *w, struct error *e)
{
	struct region *r = w->region;
	struct task *t = w->task;
	uint64_t top = r->addr + slot_offset(r, w->slot) + SLOT_SIZE - SLOT_TOP;
	struct arch_regs regs = t->saved_regs;
	int err = 0;

	if (!t->masked) {
		t->masked = true;
		if (t->saved)
			rescue_note_task(t);
		err = task_set_mask(t, ~0ull, e);
	}
	if (err == 0 && !t->saved)
		err = arch_regs_get(t->tid, &regs);
	if (err == 0) {
		arch_regs_call(&regs, r->addr + PB_OFF_ENTRY, top - ARCH_CURE_SIZE, top);
		err = arch_regs_set(t->tid, &regs);
	}
	if (err == 0)
		err = task_cont(t, e);
	if (err == -ESRCH)
		t->state = TASK_GONE;
	else if (err < 0)
		error_set(e, -err, "pid %d: thread %d cannot enter the parasite", t->pid, t->tid);
	return err;
}

int runner_start(struct runner **ret, struct region *r, struct task *t, struct error *e)
{
	size_t slot = 0;
	int err = t->skeleton ? 0 : task_save(t, e);

	if (err == 0)
		err = take_slot(r, &slot, e);
	if (err < 0)
		return err;
	struct runner *w = xcalloc(1, sizeof(*w));

	w->region = r;
	w->task = t;
	w->slot = slot;
	prepare_mailbox(w);
	err = enter(w, e);
	if (err < 0) {
		r->slots[slot] = 0;
		free(w);
		return err;
	}
	if (r->n_runners == r->cap_runners) {
		r->cap_runners = r->cap_runners ? r->cap_runners * 2 : 8;
		r->runners = xrealloc(r->runners, r->cap_runners * sizeof(struct runner *));
	}
	r->runners[r->n_runners++] = w;
	*ret = w;
	return 0;
}

void runner_rest(struct runner *w)
{
	uint64_t limit = now_ns() + REST_MS * 1000000ull;

	if (w->mailbox->host != PB_HOST_GUARDED || w->resting || w->posted || w->broken ||
	    w->task->state != TASK_RUNNING)
		return;
	w->resting = true;
	w->mailbox->batch = PB_REST;
	__atomic_store_n(&w->mailbox->seq, ++w->seq, __ATOMIC_SEQ_CST);
	futex(&w->mailbox->seq, FUTEX_WAKE, 1, NULL);
	/* One that was killed does not answer. */
	while (__atomic_load_n(&w->mailbox->done, __ATOMIC_ACQUIRE) != w->seq && now_ns() < limit)
		nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
}

int runner_stop(struct runner *w, struct error *e)
{
	struct region *r = w->region;
	struct task *t = w->task;
	int err = 0;

	runner_rest(w);
	if (t->state == TASK_RUNNING && task_poll(t, NULL) != TASK_STOP_EVENT) {
		err = task_interrupt(t, e);
		if (err == 0)
			err = task_wait_stopped(t, STOP_MS, e);
	}
	/* Not to be left with a next instruction that the removal of the region takes away. */
	if (err == 0 && !t->skeleton)
		err = task_put_back(t, e);
	if (err == 1 || t->state == TASK_GONE)
		err = -ESRCH;
	if (w->posted)
		r->n_posted--;
	r->slots[w->slot] = 0;
	for (size_t i = 0; i < r->n_runners; i++)
		if (r->runners[i] == w) {
			r->runners[i] = r->runners[--r->n_runners];
			break;
		}
	free(w);
	return err;
}

/* --- batches ------------------------------------------------------------------------------------- */

static size_t align_up(size_t x, size_t to)
{
	return (x + to - 1) & ~(to - 1);
}

static uint64_t in_target(const struct runner *w, const void *p)
{
	return w->region->addr + (uint64_t)((const uint8_t *)p - w->region->map);
}

/* Room is given out upwards and taken back when no batch is left. -ENOSPC without a text: try again after
 * that. */
static int post(struct runner *w, struct batch *b, struct error *e)
{
	struct region *r = w->region;

	if (w->broken)
		return error_say(e, EBUSY, "pid %d: thread %d is still in a cancelled batch", w->task->pid,
				 w->task->tid);
	if (r->n_posted == 0)
		r->arena = ARENA_BASE;
	size_t at = align_up(r->arena, 16);
	size_t entries = align_up(at + sizeof(struct pb_batch), 16);
	size_t data = align_up(entries + b->n * sizeof(struct pb_entry),
			       b->data_size >= PAGE_SIZE_BYTES ? 4096 : 16);
	size_t end = data + b->data_size;

	if (end > arena_end(r)) {
		if (r->n_posted)
			return -ENOSPC;
		return error_say(
			e, ENOSPC,
			"pid %d: a batch of %zu entries and %zu bytes does not fit into the parasite", r->pid,
			b->n, b->data_size);
	}
	struct pb_batch *p = (struct pb_batch *)(r->map + at);

	*p = (struct pb_batch){
		.n_entries = (uint32_t)b->n, .entries = entries, .data = data, .data_size = b->data_size};
	if (b->n)
		memcpy(r->map + entries, b->entries, b->n * sizeof(struct pb_entry));
	if (b->data_size)
		memcpy(r->map + data, b->data, b->data_size);
	r->arena = end;
	r->n_posted++;
	w->posted = b;
	w->posted_at = at;
	b->ran = b->failed = false;
	if (b->opens_fds && !r->skeleton)
		rescue_note_undo(r->pid, in_target(w, &w->mailbox->seq),
				 in_target(w, &w->mailbox->n_undo_fds));
	w->mailbox->batch = at;
	__atomic_store_n(&w->mailbox->seq, ++w->seq, __ATOMIC_SEQ_CST);
	futex(&w->mailbox->seq, FUTEX_WAKE, 1, NULL);
	return 0;
}

static int crashed(struct runner *w, int sig, struct error *e)
{
	const struct pb_batch *p = (const struct pb_batch *)(w->region->map + w->posted_at);
	const struct batch *b = w->posted;
	siginfo_t si = {0};
	uint32_t i = p->n_done;

	(void)ptrace(PTRACE_GETSIGINFO, w->task->tid, NULL, &si);
	w->broken = true;
	return error_say(e, EFAULT, "pid %d: thread %d got signal %d (address %p) in %s (step %u of %zu)",
			 w->task->pid, w->task->tid, sig, si.si_addr, i < b->n ? b->labels[i] : "a batch",
			 i + 1, b->n);
}

/* The thread stopped, died, or nothing. */
static int look(struct runner *w, struct error *e)
{
	int sig;

	switch (task_poll(w->task, &sig)) {
	case TASK_STOP_GONE:
		return -ESRCH;
	case TASK_STOP_SIGNAL:
		return sig == SIGSTOP ? task_resume(w->task, PTRACE_CONT, sig, e) : crashed(w, sig, e);
	case TASK_STOP_NONE:
		return 0;
	default:
		return task_cont(w->task, e); /* a group stop, or an old request to stop */
	}
}

static int wait_done(struct runner *w, struct error *e)
{
	static const struct timespec interval = {.tv_nsec = LOOK_NS};
	uint64_t aborted = 0;

	for (unsigned n = 0;; n++) {
		uint32_t done = __atomic_load_n(&w->mailbox->done, __ATOMIC_ACQUIRE);

		if (done == w->seq)
			return 0;
		if (n < SPINS)
			continue;
		futex(&w->mailbox->done, FUTEX_WAIT, done, &interval);
		if (__atomic_load_n(&w->mailbox->done, __ATOMIC_ACQUIRE) == w->seq)
			return 0;
		int err = look(w, e);

		if (err < 0)
			return err;
		if (job_aborted()) {
			aborted = aborted ? aborted : now_ns();
			if (now_ns() - aborted > ABORT_NS) {
				w->broken = true;
				return job_check_abort(e);
			}
		}
	}
}

static int collect(struct runner *w, struct error *e)
{
	struct region *r = w->region;
	struct batch *b = w->posted;
	const struct pb_batch *p = (const struct pb_batch *)(r->map + w->posted_at);
	int err = wait_done(w, e);

	w->posted = NULL;
	r->n_posted--;
	if (err < 0)
		return err == -ESRCH
			       ? error_say(e, ESRCH, "pid %d: thread %d died", w->task->pid, w->task->tid)
			       : err;
	b->ran = true;
	b->n_done = MIN((size_t)p->n_done, b->n);
	b->failed = p->failed;
	for (size_t i = 0; i < b->n_done + (b->failed && b->n_done < b->n); i++)
		b->entries[i].result = ((const struct pb_entry *)(r->map + p->entries))[i].result;
	if (b->data_size)
		memcpy(b->data, r->map + p->data, b->data_size);
	if (!b->failed)
		return 0;
	struct error here = ERROR_INIT;

	batch_error(b, &here);
	return error_say(e, here.code, "pid %d: %s", w->task->pid, here.text);
}

int runner_run_all(struct runner **w, struct batch **b, size_t n, struct error *e)
{
	size_t collected = 0;
	int first = 0;

	for (size_t i = 0; i < n && first == 0; i++) {
		int err = post(w[i], b[i], e);

		/* No room: let those that run end first. */
		if (err == -ENOSPC && !error_is(e)) {
			for (; collected < i; collected++) {
				int one = collect(w[collected], e);

				first = first ? first : one;
			}
			err = first ? first : post(w[i], b[i], e);
		}
		if (err < 0) {
			first = first ? first : err;
			n = i;
		}
	}
	for (; collected < n; collected++) {
		if (!w[collected]->posted)
			continue;
		int one = collect(w[collected], e);

		first = first ? first : one;
	}
	return first;
}

int runner_run(struct runner *w, struct batch *b, struct error *e)
{
	return runner_run_all(&w, &b, 1, e);
}
