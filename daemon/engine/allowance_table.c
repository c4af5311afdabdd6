/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What several rebuilds, each in a process of its own, have taken for one peer.  Whoever wants more looks at
 * what the others have and writes down its own share under one lock, so that no two can take the same.  The
 * lock is a robust one: its owner may be killed at any time.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "engine/allowance_table.h"

struct slot {
	char peer[96]; /* "": nobody's */
	uint64_t memory, tasks;
};

struct allowance_table {
	pthread_mutex_t lock;
	size_t n;
	struct slot slots[];
};

struct allowance_table *allowance_table_new(size_t slots)
{
	pthread_mutexattr_t attr;
	struct allowance_table *t = mmap(NULL, sizeof(*t) + slots * sizeof(t->slots[0]),
					 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (t == MAP_FAILED)
		return NULL;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&t->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	t->n = slots;
	return t;
}

/* One that died with the lock has written its own slot at most. */
static void lock(struct allowance_table *t)
{
	if (pthread_mutex_lock(&t->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&t->lock);
}

void allowance_table_clear(struct allowance_table *t, size_t slot)
{
	if (!t)
		return;
	lock(t);
	memset(&t->slots[slot], 0, sizeof(t->slots[slot]));
	pthread_mutex_unlock(&t->lock);
}

void allowance_claim(const struct restore_limits *l, const char *peer)
{
	struct allowance_table *t = l->table;

	if (!t)
		return;
	lock(t);
	snprintf(t->slots[l->slot].peer, sizeof(t->slots[l->slot].peer), "%s", peer);
	pthread_mutex_unlock(&t->lock);
}

bool allowance_share(const struct restore_limits *l, enum allowance_what what, uint64_t least,
		     uint64_t wanted, uint64_t *ret_others)
{
	struct allowance_table *t = l->table;
	uint64_t limit = what == ALLOWANCE_MEMORY ? l->memory : l->tasks, others = 0;

	*ret_others = 0;
	if (!limit)
		return true;
	if (!t)
		return least <= limit;
	struct slot *own = &t->slots[l->slot];

	lock(t);
	for (size_t i = 0; i < t->n && *own->peer; i++) {
		const struct slot *s = &t->slots[i];

		if (s != own && !strcmp(s->peer, own->peer))
			others += what == ALLOWANCE_MEMORY ? s->memory : s->tasks;
	}
	uint64_t room = limit > others ? limit - others : 0;
	bool fits = least <= room;

	/* Refused, it takes nothing. */
	if (!l->rehearsal)
		*(what == ALLOWANCE_MEMORY ? &own->memory : &own->tasks) =
			fits ? MAX(least, MIN(wanted, room)) : 0;
	pthread_mutex_unlock(&t->lock);
	*ret_others = others;
	return fits;
}
