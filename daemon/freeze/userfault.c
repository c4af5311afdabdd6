/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that wait for a monitor of the tree itself, and how they are stopped.
 *
 * A thread whose system call waits for a page of the program's own userfaultfd, or for an event of it to be
 * read, does not stop while the monitor, stopped, cannot help it.  So the monitor stops last; and as nothing
 * tells which thread it is, those go first that are seen waiting, and stay stopped from then on.
 *
 * One that waits for an event sleeps on, asked to stop or not, and stops as soon as the event has been read.
 * One that waits for a page does not sleep any more when it is asked, but tries again and again, so that the
 * monitor, when it reads, always finds this fault first; and while an event is unread no page can be placed:
 * nobody would ever get on, and the request cannot be taken back.  So nobody is asked who may come to wait
 * for a page while somebody waits for an event.  To know that, all others are stopped, the monitor with them:
 * then the threads that are left come to rest, each at its page or event, and a look at them stays true.
 * Those at an event are asked and the others let go until they have stopped; when none is at an event, the
 * others are asked.
 */
#include "freeze/userfault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "procfs/procfs.h"

#define LOOK_EVERY_US 300
#define LEARN_MS      5   /* looking who waits, before anything is stopped */
#define REST_MS       20  /* for threads to come to rest */
#define STEP_MS       100 /* for a monitor to help; then who can be asked is found anew */

enum place { ELSEWHERE, WAITS_FOR_PAGE, WAITS_FOR_EVENT };

static enum place look(const struct task *t)
{
	cleanup_free char *place = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/wchan", t->pid, t->tid);
	if (read_file(path, &place) < 0)
		return ELSEWHERE;
	return !strcmp(place, "userfaultfd_event_wait_completion") ? WAITS_FOR_EVENT
	       : !strcmp(place, "handle_userfault")                ? WAITS_FOR_PAGE
								   : ELSEWHERE;
}

static bool has_userfaultfd(pid_t pid)
{
	cleanup_free int *fds = NULL;
	struct error gone = ERROR_INIT;
	size_t n = 0;
	bool has = false;

	if (proc_fds(pid, &fds, &n, &gone) < 0)
		return false;
	for (size_t i = 0; i < n && !has; i++) {
		cleanup_free char *path = xasprintf("/proc/%d/fd/%d", pid, fds[i]), *link = NULL;

		has = readlink_at(AT_FDCWD, path, &link) == 0 && !strcmp(link, "anon_inode:[userfaultfd]");
	}
	return has;
}

void userfaults_begin(struct tree *tree)
{
	for (size_t i = 0; i < tree->n; i++)
		for (size_t j = 0; j < tree->procs[i]->n_threads; j++)
			tree->procs[i]->threads[j]->task.waited = false;
}

void userfaults_let_monitors_go(struct tree *tree, const struct task *stuck, bool all, struct error *e)
{
	struct error slow = ERROR_INIT;

	for (size_t i = 0; tree->userfaults && i < tree->n; i++) {
		struct process *p = tree->procs[i];

		if (p->state == PROCESS_ZOMBIE || !has_userfaultfd(process_living(p)))
			continue;
		for (size_t j = 0; j < p->n_threads; j++) {
			struct task *t = &p->threads[j]->task;

			if (t == stuck || !t->seized || t->group_stopped || (t->waited && !all))
				continue;
			if (t->state == TASK_STOPPED ||
			    (t->state == TASK_RUNNING && task_wait_stopped(t, 0, &slow) == 0))
				(void)task_cont(t, e);
		}
	}
}

static bool running(const struct task *t)
{
	return t->seized && t->state == TASK_RUNNING;
}

typedef bool (*visit_fn)(struct task *t);

/* Does it hold for any thread? All are visited. */
static bool any(struct tree *tree, visit_fn visit)
{
	bool found = false;

	for (size_t i = 0; i < tree->n; i++)
		for (size_t j = 0; j < tree->procs[i]->n_threads; j++)
			found = visit(&tree->procs[i]->threads[j]->task) || found;
	return found;
}

/* Until it holds for none, or the time is up. False: the time was up. */
static bool until_none(struct tree *tree, visit_fn visit, unsigned ms)
{
	uint64_t limit = now_ns() + ms * 1000000ull;

	while (any(tree, visit)) {
		if (now_ns() > limit)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_US * 1000}, NULL);
	}
	return true;
}

static bool note_waiting(struct task *t)
{
	if (running(t) && look(t) != ELSEWHERE)
		t->waited = true;
	return true;
}

/* Polled here as well: it may have a signal to take. */
static bool still_running(struct task *t)
{
	struct error slow = ERROR_INIT; /* what is wrong with it shows when all are to stop */

	return running(t) && task_wait_stopped(t, 0, &slow) == -ETIMEDOUT;
}

static bool waiter_is_left(struct task *t)
{
	return t->waited && still_running(t);
}

static bool waiter_moves(struct task *t)
{
	return waiter_is_left(t) && look(t) == ELSEWHERE;
}

static bool waiter_at_event(struct task *t)
{
	return waiter_is_left(t) && look(t) == WAITS_FOR_EVENT;
}

static bool ask(struct task *t)
{
	struct error gone = ERROR_INIT;

	t->asked = task_interrupt(t, &gone) == 0;
	return true;
}

static bool ask_other(struct task *t)
{
	return !t->waited && running(t) && ask(t);
}

static bool other_is_left(struct task *t)
{
	return !t->waited && still_running(t);
}

static bool ask_waiter(struct task *t)
{
	return waiter_is_left(t) && ask(t);
}

static bool ask_at_event(struct task *t)
{
	return waiter_at_event(t) && ask(t);
}

static bool asked_is_left(struct task *t)
{
	return t->asked && waiter_is_left(t);
}

int userfaults_stop_waiting(struct tree *tree, uint64_t limit, struct error *e)
{
	if (!tree->userfaults)
		return 0;
	(void)until_none(tree, note_waiting, LEARN_MS);
	while (any(tree, waiter_is_left) && now_ns() < limit) {
		(void)any(tree, ask_other);
		if (!until_none(tree, other_is_left, REST_MS))
			(void)any(tree, note_waiting);
		(void)until_none(tree, waiter_moves, REST_MS);
		if (!any(tree, ask_at_event))
			(void)any(tree, ask_waiter);
		for (uint64_t end = now_ns() + STEP_MS * 1000000ull; now_ns() < end;) {
			userfaults_let_monitors_go(tree, NULL, false, e);
			if (until_none(tree, asked_is_left, 1))
				break;
			if (job_check_abort(e) < 0)
				return -ECANCELED;
		}
	}
	return 0;
}
