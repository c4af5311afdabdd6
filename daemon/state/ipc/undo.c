/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the end of a process is to undo of its semaphore operations (SEM_UNDO).
 *
 * The kernel shows that nowhere.  But it refuses operations that would bring a sum out of its limits
 * (ERANGE), and checks the operations of one call in order before it makes any of them good.  So a call that
 * subtracts the most there can be from a sum, and ends with an operation that can never be done (IPC_NOWAIT:
 * EAGAIN), changes nothing and says by its errno which side of 0 the sum is on.  Two of these calls, for
 * several semaphores at once, show that there is nothing to undo, which is nearly always so; otherwise the
 * sums are searched one by one.
 *
 * Only the process itself can ask.  Threads of one process share their sums; a thread with its own is
 * refused.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "parasite/region.h"
#include "state/ipc/ipc.h"
#include "state/memory/memory.h"
#include "state/task/message.h"

#define PER_CALL 5 /* semaphores */

struct question { /* of semaphores first to first + n of a set: is a sum above or below 0? */
	const Ferry__SemaphoreSet *set;
	size_t first, n;
	unsigned below, above; /* entries of the batch */
};

struct questions {
	size_t n;
	struct question v[];
};

static size_t add_op(struct sembuf *v, size_t n, size_t number, int by, int flags)
{
	v[n] = (struct sembuf){.sem_num = (unsigned short)number,
			       .sem_op = (short)by,
			       .sem_flg = (short)(flags | IPC_NOWAIT)};
	return n + (by != 0);
}

/* ERANGE if the sum of semaphore @number is below @limit (-32768 < @limit <= 32767). The value is taken to 0,
 * and is 0 afterwards. */
static size_t ask_below(struct sembuf *v, size_t n, size_t number, int value, int limit)
{
	n = add_op(v, n, number, -value, 0);
	for (int left = SEMAPHORE_MAX + 1 + limit; left > 0; left -= SEMAPHORE_MAX) {
		n = add_op(v, n, number, MIN(left, SEMAPHORE_MAX), SEM_UNDO);
		n = add_op(v, n, number, -MIN(left, SEMAPHORE_MAX), 0);
	}
	return n;
}

/* ERANGE if it is above 0. The value is 0 afterwards. */
static size_t ask_above(struct sembuf *v, size_t n, size_t number, int value)
{
	n = add_op(v, n, number, SEMAPHORE_MAX - value, 0);
	return add_op(v, n, number, -SEMAPHORE_MAX, SEM_UNDO);
}

/* The end of a call: it can never be done. */
static size_t add_never(struct sembuf *v, size_t n, size_t number)
{
	return add_op(v, n, number, -1, 0);
}

static unsigned add_call(struct batch *b, int id, const struct sembuf *v, size_t n)
{
	unsigned i = batch_call(b, "ask for a semaphore's undo", SYS_semop, ARG(id),
				ARG_PUT(b, v, n * sizeof(*v)), ARG(n));

	batch_accept_any(b, i);
	return i;
}

static void ask_some(struct batch *b, struct question *q)
{
	struct sembuf v[PER_CALL * 5 + 1];
	size_t n = 0, i;

	for (i = 0; i < q->n; i++)
		n = ask_below(v, n, q->first + i, (int)q->set->values[q->first + i], 0);
	q->below = add_call(b, q->set->id, v, add_never(v, n, q->first));
	for (n = 0, i = 0; i < q->n; i++)
		n = ask_above(v, n, q->first + i, (int)q->set->values[q->first + i]);
	q->above = add_call(b, q->set->id, v, add_never(v, n, q->first));
}

/* Threads made with CLONE_SYSVSEM, as those of pthreads are, share one. */
static int check_threads(const struct process *p, struct error *e)
{
	for (size_t i = 1; i < p->n_threads; i++)
		if (sys_kcmp(process_living(p), p->threads[i]->task.tid, KCMP_SYSVSEM, 0, 0) > 0)
			return error_say(
				e, ENOTSUP,
				"pid %d: thread %d has semaphore undo of its own, which is not supported",
				p->pid, p->threads[i]->task.tid);
	return 0;
}

static int undo_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b, void **ret_state,
		    struct error *e)
{
	const Ferry__Ipc *ipc;
	size_t n = 0;
	int r = ipc_scan(c, false, &ipc, e);

	(void)t;
	if (r < 0 || !ipc->n_sets)
		return r;
	r = check_threads(p, e);
	/* The same as ours: none, for we never had one, or only from our threads. */
	if (r < 0 || sys_kcmp(process_living(p), getpid(), KCMP_SYSVSEM, 0, 0) == 0)
		return r;
	for (size_t i = 0; i < c->tree->n; i++) {
		const struct process *other = c->tree->procs[i];

		if (other != p && other->state == PROCESS_ALIVE &&
		    sys_kcmp(process_living(p), process_living(other), KCMP_SYSVSEM, 0, 0) == 0)
			return error_say(e, ENOTSUP,
					 "pid %d shares its semaphore undo with pid %d (clone(2) with "
					 "CLONE_SYSVSEM), which is not supported",
					 p->pid, other->pid);
	}
	for (size_t i = 0; i < ipc->n_sets; i++)
		n += (ipc->sets[i]->n_values + PER_CALL - 1) / PER_CALL;
	struct questions *all = *ret_state = xcalloc(1, sizeof(*all) + n * sizeof(all->v[0]));

	for (size_t i = 0; i < ipc->n_sets; i++)
		for (size_t at = 0; at < ipc->sets[i]->n_values; at += PER_CALL) {
			struct question *q = &all->v[all->n++];

			*q = (struct question){.set = ipc->sets[i],
					       .first = at,
					       .n = MIN(ipc->sets[i]->n_values - at, (size_t)PER_CALL)};
			ask_some(b, q);
		}
	return 0;
}

/* --- those that are not 0 ---------------------------------------------------------------------------------
 */

/* 1: the sum is out of the range that was asked for, 0: in it, -errno. */
static int ask_one(struct runner *w, int id, const struct sembuf *v, size_t n, struct error *e)
{
	struct batch b = BATCH_INIT;
	unsigned i = add_call(&b, id, v, n);
	int r = runner_run(w, &b, e);
	int64_t result = r < 0 ? 0 : batch_result(&b, i);

	batch_deinit(&b);
	if (r < 0)
		return r;
	return result == -ERANGE ? 1
	       : result == -EAGAIN
		       ? 0
		       : error_say(e, EIO,
				   "System V semaphore set %d: its undo cannot be found (result %lld)", id,
				   (long long)result);
}

static int search(struct runner *w, const Ferry__SemaphoreSet *s, size_t number, int *ret, struct error *e)
{
	int low = -SEMAPHORE_MAX, high = SEMAPHORE_MAX; /* it is in [low, high] */
	int value = (int)s->values[number];

	while (low < high) {
		int middle = low + (high - low + 1) / 2;
		struct sembuf v[8];
		size_t n = ask_below(v, 0, number, value, middle);
		int r = ask_one(w, s->id, v, add_never(v, n, number), e);

		if (r < 0)
			return r;
		if (r)
			high = middle - 1;
		else
			low = middle;
	}
	*ret = low;
	return 0;
}

static int search_some(struct runner *w, const struct question *q, Ferry__Undo *m, size_t *cap,
		       struct error *e)
{
	for (size_t i = q->first; i < q->first + q->n; i++) {
		int adjust = 0;
		int r = search(w, q->set, i, &adjust, e);

		if (r < 0)
			return r;
		if (!adjust)
			continue;
		Ferry__SemaphoreUndo *u = MESSAGE_NEW(Ferry__SemaphoreUndo, ferry__semaphore_undo);

		u->set = q->set->id;
		u->number = (uint32_t)i;
		u->adjust = adjust;
		if (m->n_entries == *cap) {
			*cap = *cap ? *cap * 2 : 8;
			m->entries = xrealloc(m->entries, *cap * sizeof(*m->entries));
		}
		m->entries[m->n_entries++] = u;
	}
	return 0;
}

/* It may not use that set, and has none of its semaphores as their last user: it has no undo there. */
static bool never_used(const struct batch *b, const struct question *q, pid_t pid)
{
	if (batch_result(b, q->below) != -EACCES || batch_result(b, q->above) != -EACCES)
		return false;
	for (size_t i = 0; i < q->set->n_pids; i++)
		if (q->set->pids[i] == pid)
			return false;
	return true;
}

static bool is_clean(const struct batch *b, const struct question *q, pid_t pid)
{
	return never_used(b, q, pid) ||
	       (batch_result(b, q->below) == -EAGAIN && batch_result(b, q->above) == -EAGAIN);
}

/* In the leader once more. */
static int search_all(struct process *p, struct thread *t, const struct batch *b, const struct questions *all,
		      Ferry__Undo *m, struct error *e)
{
	struct runner *w = NULL;
	size_t cap = 0;
	int r = runner_start(&w, ((struct memory_process *)p->data)->region, &t->task, e);

	for (size_t i = 0; i < all->n && r >= 0; i++)
		if (!is_clean(b, &all->v[i], p->pid))
			r = search_some(w, &all->v[i], m, &cap, e);
	if (w) {
		struct error late = ERROR_INIT;
		int x = runner_stop(w, r < 0 ? &late : e);

		r = r < 0 ? r : x;
	}
	return r < 0 ? error_prefix(e, "pid %d", p->pid) : 0;
}

static int undo_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		     struct error *e)
{
	const struct questions *all = state;
	bool clean = true;

	for (size_t i = 0; all && i < all->n; i++)
		clean &= is_clean(b, &all->v[i], p->pid);
	if (clean)
		return 0;
	Ferry__Undo *m = MESSAGE_NEW(Ferry__Undo, ferry__undo);
	int r = search_all(p, t, b, all, m, e);

	if (r < 0 || !m->n_entries)
		ferry__undo__free_unpacked(m, NULL);
	else
		snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_UNDO, p->pid, 0, &m->base);
	return r;
}

/* Made by kind_ipc, with the values. */
const struct state_kind kind_undo = {
	.name = "ipc/undo",
	.type = FERRY__RECORD_TYPE__RECORD_UNDO,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__undo__descriptor,
	.ask = undo_ask,
	.take = undo_take,
};
