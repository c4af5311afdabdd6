/* SPDX-License-Identifier: Apache-2.0 */
#include "track/calls.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "freeze/rescue.h"

#define TICK_MS 200

struct call_watch {
	pthread_t thread;
	unsigned limit_ms;
	atomic_ulong calls; /* begun and ended: odd while one is made */
	atomic_bool over;
};

/* Ticks are counted, not the clock: what stops us stops both. */
static void *watch(void *arg)
{
	const struct timespec tick = {.tv_nsec = TICK_MS * 1000000l};
	struct call_watch *w = arg;
	unsigned long last = 0;
	unsigned ms = 0;

	while (!atomic_load(&w->over)) {
		unsigned long now = atomic_load(&w->calls);

		ms = now & 1 && now == last ? ms + TICK_MS : 0;
		last = now;
		if (ms > w->limit_ms) {
			rescue_note_overdue(w->limit_ms);
			kill(getpid(), SIGKILL);
		}
		nanosleep(&tick, NULL);
	}
	return NULL;
}

int backend_watch(struct backend *b, unsigned limit_ms)
{
	struct call_watch *w = xcalloc(1, sizeof(*w));
	sigset_t all, old;

	w->limit_ms = limit_ms;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	int r = pthread_create(&w->thread, NULL, watch, w);

	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r != 0) {
		free(w);
		return -r;
	}
	b->watch = w;
	return 0;
}

void call_watch_free(struct call_watch *w)
{
	if (!w)
		return;
	atomic_store(&w->over, true);
	pthread_join(w->thread, NULL);
	free(w);
}

static void enter(const struct backend *b, const char *what)
{
	rescue_note_call(b->ops->name, what);
	if (b->watch)
		atomic_fetch_add(&b->watch->calls, 1);
}

static void leave(const struct backend *b)
{
	if (b->watch)
		atomic_fetch_add(&b->watch->calls, 1);
	rescue_note_call(NULL, NULL);
}

int backend_attach(const struct backend *b, const struct dirty_target *t, struct dirty_session **ret,
		   char *why, size_t why_size)
{
	enter(b, "attach()");
	int r = b->ops->attach(t, ret, why, why_size);

	leave(b);
	return r;
}

int backend_begin(const struct backend *b, struct dirty_session *s, enum dirty_collect_mode mode, char *why,
		  size_t why_size)
{
	enter(b, "begin()");
	int r = b->ops->begin(s, mode, why, why_size);

	leave(b);
	return r;
}

int backend_arm(const struct backend *b, struct dirty_session *s, const struct dirty_vma *v, char *why,
		size_t why_size)
{
	enter(b, "arm()");
	int r = b->ops->arm(s, v, why, why_size);

	leave(b);
	return r;
}

ssize_t backend_collect(const struct backend *b, struct dirty_session *s, const struct dirty_vma *v,
			enum dirty_collect_mode mode, const struct dirty_range **ret_ranges, char *why,
			size_t why_size)
{
	enter(b, "collect()");
	ssize_t n = b->ops->collect(s, v, mode, ret_ranges, why, why_size);

	leave(b);
	return n;
}

int backend_end(const struct backend *b, struct dirty_session *s, enum dirty_collect_mode mode, char *why,
		size_t why_size)
{
	enter(b, "end()");
	int r = b->ops->end(s, mode, why, why_size);

	leave(b);
	return r;
}

void backend_detach(const struct backend *b, struct dirty_session *s)
{
	enter(b, "detach()");
	b->ops->detach(s);
	leave(b);
}

bool backend_shared_sure(const struct backend *b, struct dirty_session *s)
{
	if (!b->ops->shared_sure)
		return false;
	enter(b, "shared_sure()");
	int r = b->ops->shared_sure(s);

	leave(b);
	return r == 1;
}

bool backend_still_there(const struct backend *b, struct dirty_session *s, uint64_t start, uint64_t end)
{
	if (!b->ops->still_there)
		return true;
	enter(b, "still_there()");
	int r = b->ops->still_there(s, start, end);

	leave(b);
	return r == 1;
}

bool backend_owns(const struct backend *b, struct dirty_session *s, const struct dirty_vma *v)
{
	if (!b->ops->owns)
		return false;
	enter(b, "owns()");
	int r = b->ops->owns(s, v);

	leave(b);
	return r == 1;
}
