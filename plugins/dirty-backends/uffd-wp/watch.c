/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MADV_GUARD_INSTALL in a protected map of a file or of shared memory never ends by itself.
 *
 * The kernel drops what is mapped in the range and then expects to find it empty. In such maps a protected
 * page leaves a marker behind when it is dropped, so that the protection outlives the page; the kernel finds
 * the marker, drops the range again, which markers survive, and goes round for ever: in turns of the system
 * call, so that signals and stops get through, but at full speed and without success.  (Anonymous memory
 * leaves no markers, huge pages neither.)
 *
 * Nothing announces such a call, and no file in /proc tells what a running thread is at. But it takes system
 * time, and its range is full of markers.  So a thread here looks every 20 ms how much system time each
 * target took; after some 30 ms of it, it searches the target's file maps for markers, and takes the
 * protection off them.  The next turn of the call finds nothing there and installs its guards.
 *
 * What is lost by that: nothing.  A marker has no page; without it the entry is empty, and whatever appears
 * there is told as written, as anywhere else.  If a page has come there meanwhile it counts as written, too:
 * taking off protection can only make more pages dirty.  So it does not matter that system time is a weak
 * hint and that most markers have nothing to do with guards.
 *
 * Only markers are touched, and only where PAGEMAP_SCAN says that protection is of the asynchronous kind:
 * what a program protects by a userfaultfd of its own, for its own handler, is not.
 *
 * The search is bounded to a twentieth of a processor.  For a while after it has found markers it does
 * not wait for system time, as a program that installs one guard will install others.
 */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "uffd.h"

#define CALM_NS      20000000ull
#define EAGER_NS     2000000ull
#define EAGER_FOR_NS 2000000000ull
#define SUSPICIOUS   3              /* clock ticks, which are 10 ms */
#define LOOK_PART    100            /* 1/100 of the time for looking at all, */
#define SEARCH_PART  20             /* 1/20 for searching in one */
#define CHUNK        (256ull << 20) /* searched while the host waits, at most */
#define WORDS        512

#define WORD_GUARD  (1ull << 58)
#define WORD_MARKER (1ull << 62 | 1ull << 57 | 31) /* swapped, protected, of the type of markers */

/* There is one thread for all sessions, as long as there are sessions. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	struct watched *first;
	bool runs;
	atomic_bool wanted; /* the lock, by the host: the search is given up */
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Of all threads. 0: it is gone. */
static uint64_t system_ticks(pid_t pid)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	const char *p = strrchr(text, ')');

	for (int field = 2; p && field < 15; field++) /* stime is the 15th */
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

/* --- the search ----------------------------------------------------------------------------------------- */

struct search {
	struct watched *w;
	bool freed; /* a marker, at least */
};

static bool is_marker(uint64_t word)
{
	return (word & (1ull << 63 | WORD_GUARD | WORD_MARKER)) == WORD_MARKER;
}

/* Free the markers in a range that is swapped, as it seems, and protected. */
static int free_markers(void *ctx, const struct region *r)
{
	struct search *s = ctx;
	uint64_t words[WORDS], at = r->start, from = 0;

	if (r->categories & (CAT_WRITTEN | CAT_PRESENT))
		return 0;
	while (at < r->end) {
		uint64_t n = (r->end - at) / PAGE < WORDS ? (r->end - at) / PAGE : WORDS;
		ssize_t got = pread(s->w->pagemap, words, n * 8, (off_t)(at / PAGE * 8));

		if (got <= 0)
			return got < 0 ? -errno : -ESRCH;
		for (uint64_t i = 0; i < (uint64_t)got / 8; i++, at += PAGE) {
			bool marker = is_marker(words[i]);

			if (marker && !from)
				from = at;
			if (!from || (marker && at + PAGE < r->end))
				continue;
			if (uffd_unprotect(s->w->uffd, from, marker ? at + PAGE : at) == 0)
				s->freed = true;
			from = 0;
		}
	}
	return 0;
}

/* False: given up, as the host waits. */
static bool search_files(struct search *s)
{
	const struct ranges *files = &s->w->files;

	for (size_t i = 0; i < files->n; i++)
		for (uint64_t at = files->v[i].start, end; at < files->v[i].end; at = end) {
			end = files->v[i].end - at < CHUNK ? files->v[i].end : at + CHUNK;
			const struct scan scan = {.start = at,
						  .end = end,
						  .mask = CAT_WPALLOWED | CAT_SWAPPED,
						  .ret = CAT_WRITTEN | CAT_POPULATED};

			if (atomic_load(&watch.wanted))
				return false;
			pages_scan(s->w->pagemap, &scan, free_markers, s);
		}
	return true;
}

/* Returns how long it searched. */
static uint64_t look(struct watched *w)
{
	struct search s = {.w = w};
	uint64_t ticks = w->ticks, begin = now_ns();

	if (begin < w->not_before)
		return 0;
	if (begin >= w->eager_until) {
		ticks = system_ticks(w->pid);
		if (ticks < w->ticks + SUSPICIOUS)
			return 0;
		begin = now_ns();
	}
	bool complete = search_files(&s);
	uint64_t end = now_ns();

	if (complete) {
		w->ticks = ticks;
		w->not_before = end + SEARCH_PART * (end - begin);
	}
	if (s.freed)
		w->eager_until = end + EAGER_FOR_NS;
	return end - begin;
}

/* --- the thread -------------------------------------------------------------------------------------------
 */

/* Until @ns from now, or there is nobody to watch. */
static void rest(uint64_t ns)
{
	uint64_t until = now_ns() + ns;
	const struct timespec t = {.tv_sec = (time_t)(until / 1000000000u),
				   .tv_nsec = (long)(until % 1000000000u)};

	while (watch.first && now_ns() < until)
		if (pthread_cond_timedwait(&watch.wake, &watch.lock, &t) == ETIMEDOUT)
			break;
}

static void *watch_main(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&watch.lock);
	while (watch.first) {
		uint64_t begin = now_ns(), pause = CALM_NS, searched = 0;

		for (struct watched *w = watch.first; w; w = w->next) {
			searched += look(w);
			if (w->eager_until > begin)
				pause = EAGER_NS;
		}
		uint64_t least = (now_ns() - begin - searched) * LOOK_PART;

		rest(pause > least ? pause : least);
	}
	pthread_mutex_unlock(&watch.lock);
	return NULL;
}

static int start_thread(void)
{
	pthread_condattr_t monotonic;
	sigset_t all, was;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&watch.wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was); /* signals are the host's */
	int r = pthread_create(&watch.thread, NULL, watch_main, NULL);

	pthread_sigmask(SIG_SETMASK, &was, NULL);
	watch.runs = r == 0;
	return -r;
}

static void lock(void)
{
	atomic_store(&watch.wanted, true);
	pthread_mutex_lock(&watch.lock);
	atomic_store(&watch.wanted, false);
}

int watch_begin(struct watched *w, char *why, size_t why_size)
{
	w->ticks = system_ticks(w->pid);
	lock();
	w->next = watch.first;
	watch.first = w;
	int r = watch.runs ? 0 : start_thread();

	if (r < 0)
		watch.first = w->next;
	pthread_mutex_unlock(&watch.lock);
	return r < 0 ? fail(why, why_size, -r, "cannot start a thread that watches process %d", w->pid) : 0;
}

void watch_end(struct watched *w)
{
	lock();
	for (struct watched **p = &watch.first; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	bool last = watch.runs && !watch.first;

	if (last)
		pthread_cond_signal(&watch.wake);
	pthread_mutex_unlock(&watch.lock);
	if (last) {
		pthread_join(watch.thread, NULL);
		pthread_cond_destroy(&watch.wake);
		watch.runs = false;
	}
	ranges_free(&w->added);
	ranges_free(&w->files);
}

int watch_add(struct watched *w, uint64_t start, uint64_t end)
{
	int r = ranges_add(&w->added, start, end, 0);

	if (r != -ERANGE) /* of another round */
		return r;
	r = watch_commit(w);
	return r < 0 ? r : ranges_add(&w->added, start, end, 0);
}

int watch_commit(struct watched *w)
{
	if (!w->added.n)
		return 0;
	lock();
	int r = ranges_merge(&w->files, &w->added);

	pthread_mutex_unlock(&watch.lock);
	if (r == 0)
		w->added.n = 0;
	return r;
}
