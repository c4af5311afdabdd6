/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of tracked shared memory other than being written: mremap(2) can make a second mapping of it
 * that is not tracked, and madvise(2) can take pages away (MADV_REMOVE) while their entries go on looking
 * clean.  Neither leaves a trace that could be found later.  But a userfaultfd can be asked to tell of both,
 * so shared memory is registered with one of its own that does.
 *
 * The kernel holds the call until the event is read, so it must be read at once, whatever the caller does: by
 * one thread for all sessions, which does nothing else.  mremap tells when the new mapping is there, but
 * before the program can use it; MADV_REMOVE tells before anything is taken away.  So when a session is
 * asked, it knows of all that has been done with the first, and of all that has begun of the second.
 *
 * When we die our descriptors are closed and calls that wait go on.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "uffd.h"

#define STACK (64u << 10)

static struct {
	pthread_mutex_t lock;
	pthread_t thread;
	pid_t pid; /* of the process that has the thread; 0: none */
	int epoll, stop;
	struct uffd_events *first;
} reader = {.lock = PTHREAD_MUTEX_INITIALIZER, .epoll = -1, .stop = -1};

static void note(struct uffd_events *w)
{
	struct uffd_msg msg[8];
	ssize_t n;

	while ((n = read(w->fd, msg, sizeof(msg))) > 0)
		for (size_t i = 0; i < (size_t)n / sizeof(msg[0]); i++) {
			if (msg[i].event == UFFD_EVENT_REMOVE)
				w->removed = true;
			else
				w->moved = true;
		}
}

static void *read_all(void *arg)
{
	struct epoll_event ev[16];

	(void)arg;
	for (;;) {
		int n = epoll_wait(reader.epoll, ev, 16, -1);

		for (int i = 0; i < n; i++) {
			if (ev[i].data.fd == reader.stop)
				return NULL;
			/* It may have gone since. */
			pthread_mutex_lock(&reader.lock);
			for (struct uffd_events *w = reader.first; w; w = w->next)
				if (w->fd == ev[i].data.fd)
					note(w);
			pthread_mutex_unlock(&reader.lock);
		}
		if (n < 0 && errno != EINTR)
			return NULL;
	}
}

static int add(int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(reader.epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static void close_fds(void)
{
	if (reader.epoll >= 0)
		close(reader.epoll);
	if (reader.stop >= 0)
		close(reader.stop);
	reader.epoll = reader.stop = -1;
	reader.pid = 0;
}

static int start_thread(void)
{
	pthread_attr_t attr;
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the program's, not the thread's */
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	int r = pthread_create(&reader.thread, &attr, read_all, NULL);

	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

/* With the lock held. */
static int start(void)
{
	if (reader.pid == getpid())
		return 0;
	close_fds(); /* those of the process we were forked from */
	reader.epoll = epoll_create1(EPOLL_CLOEXEC);
	reader.stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = reader.epoll < 0 || reader.stop < 0 ? -errno : add(reader.stop);

	for (struct uffd_events *w = reader.first; w && r == 0; w = w->next)
		r = add(w->fd);
	if (r == 0)
		r = start_thread();
	if (r < 0)
		close_fds();
	else
		reader.pid = getpid();
	return r;
}

int events_begin(struct uffd_events *w)
{
	pthread_mutex_lock(&reader.lock);
	int r = start();

	if (r == 0)
		r = add(w->fd);
	if (r == 0) {
		w->next = reader.first;
		reader.first = w;
	}
	pthread_mutex_unlock(&reader.lock);
	return r;
}

void events_end(struct uffd_events *w)
{
	struct uffd_events **p;
	uint64_t one = 1;
	bool last = false;
	pthread_t thread;

	pthread_mutex_lock(&reader.lock);
	for (p = &reader.first; *p && *p != w; p = &(*p)->next)
		;
	if (*p)
		*p = w->next;
	if (reader.pid == getpid()) {
		epoll_ctl(reader.epoll, EPOLL_CTL_DEL, w->fd, NULL);
		last = !reader.first && write(reader.stop, &one, sizeof(one)) == sizeof(one);
	}
	thread = reader.thread;
	pthread_mutex_unlock(&reader.lock);
	if (!last)
		return;
	pthread_join(thread, NULL); /* its code may be unloaded next */
	pthread_mutex_lock(&reader.lock);
	close_fds();
	pthread_mutex_unlock(&reader.lock);
}

/* With the lock held: also what the thread has not come to. False: there is nobody to read any more. */
static bool read_now(struct uffd_events *w)
{
	bool alive = reader.pid == getpid() || start() == 0;

	if (alive)
		note(w);
	return alive;
}

bool events_none(struct uffd_events *w)
{
	pthread_mutex_lock(&reader.lock);
	bool alive = read_now(w), quiet = alive && !w->moved && !w->removed;

	w->moved = !alive;
	pthread_mutex_unlock(&reader.lock);
	return quiet;
}

bool events_removed(struct uffd_events *w)
{
	pthread_mutex_lock(&reader.lock);
	bool removed = !read_now(w) || w->removed;

	pthread_mutex_unlock(&reader.lock);
	return removed;
}
