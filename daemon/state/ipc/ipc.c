/* SPDX-License-Identifier: Apache-2.0 */
/* RECORD_IPC: the System V semaphores and message queues of the tree, made again before its processes are
 * built. */
#include "state/ipc/ipc.h"

#include <errno.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>

#include "base/util.h"
#include "state/task/message.h"

/* What was done here, to be undone if the rebuild fails. */
struct ipc_rebuild {
	struct ipc_made {
		int id;
		Ferry__SemaphoreSet *set; /* what was found; both NULL: it was made */
		Ferry__MessageQueue *queue;
		bool is_queue;
	} * made;
	size_t n;
};

/* --- capture -------------------------------------------------------------------------------------------- */

/* Once for all processes: what is shared by them shows in the whole tree only. */
static int ipc_preflight(struct capture *c, struct process *p, struct error *e)
{
	const Ferry__Ipc *ipc;

	return p == c->tree->procs[0] && !c->tree->frozen ? ipc_scan(c, true, &ipc, e) : 0;
}

static int put(struct capture *c, bool messages, struct error *e)
{
	const Ferry__Ipc *ipc;
	int r = ipc_scan(c, !messages, &ipc, e);

	if (r < 0 || (!ipc->n_sets && !ipc->n_queues))
		return r;
	size_t size = protobuf_c_message_get_packed_size(&ipc->base);
	cleanup_free uint8_t *packed = xmalloc(size);

	protobuf_c_message_pack(&ipc->base, packed);
	Ferry__Ipc *m = ferry__ipc__unpack(NULL, size, packed);

	for (size_t i = 0; messages && i < m->n_queues && r >= 0; i++)
		r = queue_read(m->queues[i], e);
	if (r < 0)
		ferry__ipc__free_unpacked(m, NULL);
	else
		snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_IPC, 0, 0, &m->base);
	return r;
}

static int ipc_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	(void)p;
	(void)t;
	return put(c, false, e);
}

static int ipc_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		    struct error *e)
{
	(void)p;
	(void)t;
	(void)b;
	(void)state;
	return put(c, true, e);
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

static int ipc_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
		     struct error *e)
{
	const Ferry__Ipc *m = (const Ferry__Ipc *)msg;
	int x = 0;

	(void)r;
	(void)pid;
	(void)tid;
	for (size_t i = 0; i < m->n_sets && x >= 0; i++)
		x = sem_check(m->sets[i], e);
	for (size_t i = 0; i < m->n_queues && x >= 0; i++)
		x = queue_check(m->queues[i], e);
	return x;
}

struct process *ipc_process(struct rebuild *r, pid_t pid)
{
	struct process *p = pid ? tree_find(r->tree, pid) : NULL;

	return p && p->data && p->state != PROCESS_ZOMBIE ? p : r->tree->procs[0];
}

static struct ipc_made *note_made(struct rebuild *r, struct ipc_made made)
{
	struct ipc_rebuild *x = r->ipc;

	if (!x)
		x = r->ipc = xcalloc(1, sizeof(*x));
	x->made = xrealloc(x->made, (x->n + 1) * sizeof(*x->made));
	x->made[x->n] = made;
	return &x->made[x->n++];
}

static int prepare_set(struct rebuild *r, const Ferry__SemaphoreSet *s, struct error *e)
{
	int found = sem_make(s, e);

	if (found < 0)
		return found;
	struct ipc_made *made = note_made(r, (struct ipc_made){.id = s->id});

	if (found) {
		made->set = MESSAGE_NEW(Ferry__SemaphoreSet, ferry__semaphore_set);
		made->set->id = s->id;
		int x = sem_read(s->id, s->n_values, made->set, e);

		if (x < 0)
			return error_is(e) ? x : error_say(e, -x, "System V semaphore set %d is gone", s->id);
	}
	return sem_fill(r, s, e);
}

static int prepare_queue(struct rebuild *r, const Ferry__MessageQueue *q, struct error *e)
{
	int found = queue_make(q, e);

	if (found < 0)
		return found;
	struct ipc_made *made = note_made(r, (struct ipc_made){.id = q->id, .is_queue = true});

	if (found) {
		made->queue = MESSAGE_NEW(Ferry__MessageQueue, ferry__message_queue);
		made->queue->id = q->id;
		int x = queue_read(made->queue, e);

		if (x < 0)
			return x;
	}
	return queue_fill(r, q, e);
}

static int ipc_prepare(struct rebuild *r, const ProtobufCMessage *msg, struct error *e)
{
	const Ferry__Ipc *m = (const Ferry__Ipc *)msg;
	int x = 0;

	for (size_t i = 0; i < m->n_sets && x >= 0; i++)
		x = prepare_set(r, m->sets[i], e);
	for (size_t i = 0; i < m->n_queues && x >= 0; i++)
		x = prepare_queue(r, m->queues[i], e);
	return x;
}

static void give_up(const struct ipc_made *made)
{
	if (made->set)
		sem_put_back(made->set);
	else if (made->queue)
		queue_put_back(made->queue);
	else if (made->is_queue)
		msgctl(made->id, IPC_RMID, NULL);
	else
		semctl(made->id, 0, IPC_RMID);
}

void ipc_rebuild_free(struct rebuild *r, bool started)
{
	struct ipc_rebuild *x = r->ipc;

	for (size_t i = 0; x && i < x->n; i++) {
		if (!started)
			give_up(&x->made[i]);
		if (x->made[i].set)
			ferry__semaphore_set__free_unpacked(x->made[i].set, NULL);
		if (x->made[i].queue)
			ferry__message_queue__free_unpacked(x->made[i].queue, NULL);
	}
	if (x)
		free(x->made);
	free(x);
	r->ipc = NULL;
}

const struct state_kind kind_ipc = {
	.name = "ipc/ipc",
	.type = FERRY__RECORD_TYPE__RECORD_IPC,
	.scope = KIND_TREE,
	.descriptor = &ferry__ipc__descriptor,
	.preflight = ipc_preflight,
	.take_warm = ipc_take_warm,
	.take = ipc_take,
	.check = ipc_check,
	.prepare = ipc_prepare,
};
