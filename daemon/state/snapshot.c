/* SPDX-License-Identifier: Apache-2.0 */
#include "state/kind.h"

#include <string.h>

#include "base/util.h"

void snapshot_deinit(struct snapshot *s)
{
	for (size_t i = 0; i < s->n; i++)
		protobuf_c_message_free_unpacked(s->r[i].message, NULL);
	free(s->r);
	memset(s, 0, sizeof(*s));
}

static int compare(const void *a, const void *b)
{
	const struct snapshot_record *x = a, *y = b;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

void snapshot_sort(struct snapshot *s)
{
	if (s->n)
		qsort(s->r, s->n, sizeof(*s->r), compare);
	s->sorted = true;
}

static struct snapshot_record *find(const struct snapshot *s, uint32_t type, int32_t pid, int32_t tid)
{
	const struct snapshot_record key = {.type = type, .pid = pid, .tid = tid};

	if (s->sorted)
		return s->n ? bsearch(&key, s->r, s->n, sizeof(*s->r), compare) : NULL;
	for (size_t i = 0; i < s->n; i++)
		if (s->r[i].type == type && s->r[i].pid == pid && s->r[i].tid == tid)
			return &s->r[i];
	return NULL;
}

void snapshot_put(struct snapshot *s, uint32_t type, int32_t pid, int32_t tid, ProtobufCMessage *m)
{
	/* The records of one process arrive together: a duplicate can only be a warm record, and those are
	 * all put before the first final one. */
	struct snapshot_record *old = s->n && s->has_warm ? find(s, type, pid, tid) : NULL;

	if (old) {
		protobuf_c_message_free_unpacked(old->message, NULL);
		old->message = m;
		old->warm = s->putting_warm;
		return;
	}
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 64;
		s->r = xrealloc(s->r, s->cap * sizeof(*s->r));
	}
	s->sorted = false;
	s->r[s->n++] = (struct snapshot_record){type, pid, tid, s->putting_warm, m};
	if (s->putting_warm)
		s->has_warm = true;
}

ProtobufCMessage *snapshot_find(const struct snapshot *s, uint32_t type, int32_t pid, int32_t tid)
{
	struct snapshot_record *r = find(s, type, pid, tid);

	return r ? r->message : NULL;
}

void snapshot_drop_warm(struct snapshot *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		if (s->r[i].warm)
			protobuf_c_message_free_unpacked(s->r[i].message, NULL);
		else
			s->r[n++] = s->r[i];
	}
	s->n = n;
	s->has_warm = false;
}
