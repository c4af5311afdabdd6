/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V message queues.  MSG_COPY gives copies of the messages, which stay, and changes nothing that can
 * be seen.  At the destination they are sent again by the skeletons of those who sent and received last, so
 * that the kernel remembers them; the times are not kept.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "state/ipc/ipc.h"
#include "state/ipc/next_id.h"
#include "state/task/message.h"

#define TRIES 20
/* A message that fits into the arena of a skeleton. */
#define BATCH_BYTES (32u << 10)

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

static bool is_gone(int err)
{
	return err == EINVAL || err == EIDRM;
}

/* 1: one more, 0: there are no more. */
static int read_one(Ferry__MessageQueue *q, size_t index, struct msgbuf *buffer, size_t size, size_t *cap,
		    struct error *e)
{
	ssize_t n = msgrcv(q->id, buffer, size, (long)index, MSG_COPY | IPC_NOWAIT);

	if (n < 0 && errno == ENOMSG)
		return 0;
	if (n < 0)
		return error_set(e, errno, "copy message %zu of System V message queue %d%s", index, q->id,
				 errno == ENOSYS ? " (the kernel lacks CONFIG_CHECKPOINT_RESTORE)" : "");
	Ferry__QueuedMessage *m = MESSAGE_NEW(Ferry__QueuedMessage, ferry__queued_message);

	m->type = buffer->mtype;
	m->text = message_bytes(buffer->mtext, (size_t)n);
	if (q->n_messages == *cap) {
		*cap = *cap ? *cap * 2 : 16;
		q->messages = xrealloc(q->messages, *cap * sizeof(*q->messages));
	}
	q->messages[q->n_messages++] = m;
	return 1;
}

int queue_read(Ferry__MessageQueue *q, struct error *e)
{
	struct msqid_ds ds;

	if (msgctl(q->id, IPC_STAT, &ds) < 0)
		return error_set(e, errno, "look at System V message queue %d", q->id);
	size_t size = ds.__msg_cbytes, cap = q->n_messages;
	cleanup_free struct msgbuf *buffer = xmalloc(sizeof(*buffer) + size);
	int r = ds.msg_qnum ? 1 : 0;

	for (size_t i = 0; r > 0; i++)
		r = read_one(q, i, buffer, size, &cap, e);
	return r;
}

/* --- destination ------------------------------------------------------------------------------------------
 */

/* 1: the very queue is here. 0: the id is free. */
static int find(const Ferry__MessageQueue *q, struct error *e)
{
	struct msqid_ds ds;

	if (msgctl(q->id, IPC_STAT, &ds) < 0)
		return is_gone(errno) ? 0 : error_set(e, errno, "look for System V message queue %d", q->id);
	if (ds.msg_perm.__key == q->owner->key && ds.msg_ctime == q->owner->ctime &&
	    ds.msg_perm.cuid == q->owner->cuid)
		return 1;
	return error_say(
		e, EEXIST,
		"System V message queue id %d is taken here by another queue (key 0x%x; ipcrm -q %d removes "
		"it)",
		q->id, ds.msg_perm.__key, q->id);
}

int queue_check(const Ferry__MessageQueue *q, struct error *e)
{
	int r = q->owner ? find(q, e)
			 : error_say(e, EPROTO, "the image says too little of System V message queue %d",
				     q->id);
	int id;

	if (r != 0 || !q->owner->key)
		return r < 0 ? r : 0;
	id = msgget(q->owner->key, 0);
	if (id < 0)
		return errno == ENOENT ? 0
				       : error_set(e, errno, "look for System V message queue key 0x%x",
						   q->owner->key);
	return error_say(e, EEXIST,
			 "System V message queue key 0x%x is taken here by queue %d (ipcrm -q %d removes it)",
			 q->owner->key, id, id);
}

static int get_queue(void *ctx, key_t key)
{
	const Ferry__MessageQueue *q = ctx;

	return msgget(key, IPC_CREAT | IPC_EXCL | (int)q->owner->mode);
}

static int set_owner(const Ferry__MessageQueue *q, struct error *e)
{
	const Ferry__IpcOwner *o = q->owner;
	struct msqid_ds ds;

	if (msgctl(q->id, IPC_STAT, &ds) < 0)
		return error_set(e, errno, "look at System V message queue %d", q->id);
	if (o->uid == o->cuid && o->gid == o->cgid && ds.msg_qbytes == q->max_bytes)
		return 0;
	ds.msg_perm.uid = o->uid;
	ds.msg_perm.gid = o->gid;
	ds.msg_perm.mode = (unsigned short)o->mode;
	ds.msg_qbytes = q->max_bytes;
	return msgctl(q->id, IPC_SET, &ds) < 0
		       ? error_set(e, errno, "set owner and size (%llu) of System V message queue %d",
				   (unsigned long long)q->max_bytes, q->id)
		       : 0;
}

int queue_make(const Ferry__MessageQueue *q, struct error *e)
{
	int r = find(q, e), id = -1;

	for (int i = 0; r == 0 && i < TRIES; i++) {
		id = next_id_get("msg", q->id, q->owner->cuid, q->owner->cgid, q->owner->key, get_queue,
				 (void *)q, e);
		if (error_is(e))
			return id;
		if (id < 0)
			return error_set(e, -id, "make System V message queue %d (key 0x%x)", q->id,
					 q->owner->key);
		if (id == q->id) {
			r = set_owner(q, e);
			if (r < 0)
				msgctl(id, IPC_RMID, NULL);
			return r;
		}
		msgctl(id, IPC_RMID, NULL);
		r = find(q, e);
		if (r > 0)
			return error_say(e, EEXIST, "System V message queue id %d is taken", q->id);
	}
	return r ? r
		 : error_say(e, EEXIST, "System V message queue id %d cannot be had here (got %d)", q->id,
			     id);
}

/* --- its messages -----------------------------------------------------------------------------------------
 */

static void empty(int id)
{
	struct msgbuf one;

	while (msgrcv(id, &one, 0, 0, IPC_NOWAIT | MSG_NOERROR) >= 0)
		;
}

static void add_send(struct batch *b, int id, int64_t type, const void *text, size_t n)
{
	size_t at = batch_reserve(b, sizeof(long) + n);
	long *buffer = batch_data(b, at);

	*buffer = type;
	if (n)
		memcpy(buffer + 1, text, n);
	batch_call(b, "send a System V message", SYS_msgsnd, ARG(id), ARG_DATA(at), ARG(n), ARG(IPC_NOWAIT));
}

static int run(struct rebuild *r, struct process *p, struct batch *b, struct error *e)
{
	int x = b->n ? r->run_in(r, p, b, e) : 0;

	batch_deinit(b);
	*b = (struct batch)BATCH_INIT;
	return x;
}

/* A message of no meaning, from the one to the other: the kernel remembers both. */
static int introduce(struct rebuild *r, const Ferry__MessageQueue *q, struct error *e)
{
	struct batch b = BATCH_INIT;

	add_send(&b, q->id, 1, NULL, 0);
	int x = run(r, ipc_process(r, q->sender ? q->sender : q->receiver), &b, e);

	if (x < 0)
		return x;
	batch_call(&b, "receive a System V message", SYS_msgrcv, ARG(q->id),
		   ARG_DATA(batch_reserve(&b, sizeof(struct msgbuf))), ARG(0), ARG(0), ARG(IPC_NOWAIT));
	return run(r, ipc_process(r, q->receiver ? q->receiver : q->sender), &b, e);
}

static int send_here(const Ferry__MessageQueue *q, const Ferry__QueuedMessage *m)
{
	cleanup_free struct msgbuf *buffer = xmalloc(sizeof(*buffer) + m->text.len);

	buffer->mtype = m->type;
	if (m->text.len)
		memcpy(buffer->mtext, m->text.data, m->text.len);
	return msgsnd(q->id, buffer, m->text.len, IPC_NOWAIT) < 0 ? -errno : 0;
}

/* Only who sends the last one is remembered. */
static int send_last(struct rebuild *r, const Ferry__MessageQueue *q, const Ferry__QueuedMessage *m,
		     struct error *e)
{
	struct batch b = BATCH_INIT;

	add_send(&b, q->id, m->type, m->text.data, m->text.len);
	return run(r, ipc_process(r, q->sender), &b, e);
}

int queue_fill(struct rebuild *r, const Ferry__MessageQueue *q, struct error *e)
{
	int x = 0;

	empty(q->id);
	/* It refuses messages: then nobody is introduced. */
	if ((q->sender || q->receiver) && q->max_bytes)
		x = introduce(r, q, e);
	for (size_t i = 0; i < q->n_messages && x >= 0; i++) {
		const Ferry__QueuedMessage *m = q->messages[i];

		if (i + 1 == q->n_messages && m->text.len <= BATCH_BYTES) {
			x = send_last(r, q, m, e);
		} else {
			x = send_here(q, m);
			if (x < 0)
				error_set(e, -x, "send message %zu of %zu bytes", i, m->text.len);
		}
	}
	return x < 0 ? error_prefix(e, "System V message queue %d", q->id) : 0;
}

void queue_put_back(const Ferry__MessageQueue *was)
{
	empty(was->id);
	for (size_t i = 0; i < was->n_messages; i++)
		send_here(was, was->messages[i]);
}
