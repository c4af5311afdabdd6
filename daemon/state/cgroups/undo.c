/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rebuild does to cgroups outlives it, so a process is forked before anything is done that undoes it
 * when we die.  It is told of each step before that is taken, by a pipe of which only we have the other end:
 *
 *	m DIR             the group DIR is about to be made
 *	v DIR NAME VALUE  the file NAME of it is about to be changed from VALUE
 *	x                 the step just told was not taken
 *	k                 the tree runs: all of it stays
 *
 * each string with a zero byte behind it.  The end of the pipe without a "k" is our death, or our wish.  We
 * keep the same list: what fails after the "k" is undone by ourselves.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"

#define PAUSE_US   10000u
#define PAUSES     6000u /* a minute: the last of a big tree may take its time to die */
#define OUR_PAUSES 200u  /* two seconds: the source's copy waits for our answer */

struct cgroup_undo {
	char *list;
	size_t n;
	int pipe; /* -1: the guard was told to keep all */
	pid_t guard;
};

/* --- undoing -------------------------------------------------------------------------------------------- */

struct step {
	char what;
	const char *arg[3];
};

/* One that was cut off by our death was not taken: it is as if it had not been told. */
static size_t next_step(const char *list, size_t n, struct step *ret)
{
	size_t at = 1, args = *list == 'm' ? 1 : *list == 'v' ? 3 : 0;

	ret->what = *list;
	for (size_t i = 0; i < args; i++) {
		const char *end = memchr(list + at, 0, n - at);

		if (!end)
			return 0;
		ret->arg[i] = list + at;
		at = (size_t)(end + 1 - list);
	}
	return at;
}

static struct step *parse(const char *list, size_t n, size_t *ret_n)
{
	struct step *steps = xcalloc(n + 1, sizeof(*steps));
	size_t length;

	*ret_n = 0;
	for (size_t at = 0; at < n && (length = next_step(list + at, n - at, &steps[*ret_n])) > 0;
	     at += length)
		*ret_n += steps[*ret_n].what == 'x' ? (size_t)-1 : 1;
	return steps;
}

static void undo_all(const char *list, size_t length, unsigned pauses)
{
	size_t n;
	cleanup_free struct step *steps = parse(list, length, &n);

	/* Twice: some values may only be changed after others (a limit of memory, and of memory with swap).
	 */
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = n; i-- > 0;)
			if (steps[i].what == 'v')
				(void)cgroup_write(steps[i].arg[0], steps[i].arg[1], steps[i].arg[2]);
	for (size_t i = n; i-- > 0;)
		while (steps[i].what == 'm' && rmdir(steps[i].arg[0]) < 0 && errno == EBUSY && pauses--)
			usleep(PAUSE_US);
}

static void __attribute__((noreturn)) stand_guard(int end)
{
	char *list = NULL;
	size_t n = 0, at = 0, length;
	struct step step;
	ssize_t got;
	char piece[4096];

	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (dup2(end, 0) < 0 || close_range(1, ~0u, 0) < 0)
		_exit(1);
	while ((got = read(0, piece, sizeof(piece))) > 0 || (got < 0 && errno == EINTR)) {
		if (got < 0)
			continue;
		list = xrealloc(list, n + (size_t)got);
		memcpy(list + n, piece, (size_t)got);
		n += (size_t)got;
		for (; at < n && (length = next_step(list + at, n - at, &step)) > 0; at += length)
			if (step.what == 'k')
				_exit(0);
	}
	undo_all(list, n, PAUSES);
	_exit(0);
}

/* --- telling it ----------------------------------------------------------------------------------------- */

int cgroup_undo_new(struct cgroup_undo **ret, struct error *e)
{
	struct cgroup_undo *u = xcalloc(1, sizeof(*u));
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0) {
		free(u);
		return error_set(e, errno, "make a pipe");
	}
	u->guard = fork();
	if (u->guard == 0) {
		close(ends[1]);
		stand_guard(ends[0]);
	}
	close(ends[0]);
	if (u->guard < 0) {
		int err = errno;

		close(ends[1]);
		free(u);
		return error_set(e, err, "start a process that undoes what is done to cgroups");
	}
	u->pipe = ends[1];
	*ret = u;
	return 0;
}

static int tell(struct cgroup_undo *u, char what, const char *const *args, size_t n_args, struct error *e)
{
	size_t begin = u->n;

	u->list = xrealloc(u->list, u->n + 1);
	u->list[u->n++] = what;
	for (size_t i = 0; i < n_args; i++) {
		size_t n = strlen(args[i]) + 1;

		u->list = xrealloc(u->list, u->n + n);
		memcpy(u->list + u->n, args[i], n);
		u->n += n;
	}
	int r = u->pipe < 0 ? 0 : write_full(u->pipe, u->list + begin, u->n - begin);

	return r < 0 ? error_set(e, -r, "the process that undoes what is done to cgroups has ended") : 0;
}

int cgroup_undo_made(struct cgroup_undo *u, const char *dir, struct error *e)
{
	return tell(u, 'm', (const char *const[]){dir}, 1, e);
}

int cgroup_undo_value(struct cgroup_undo *u, const char *dir, const char *name, const char *was,
		      struct error *e)
{
	return tell(u, 'v', (const char *const[]){dir, name, was}, 3, e);
}

int cgroup_undo_not(struct cgroup_undo *u, struct error *e)
{
	return tell(u, 'x', NULL, 0, e);
}

bool cgroup_undo_has_made(const struct cgroup_undo *u, const char *dir)
{
	size_t n = 0;

	if (!u)
		return false;
	cleanup_free struct step *steps = parse(u->list, u->n, &n);

	for (size_t i = 0; i < n; i++)
		if (steps[i].what == 'm' && !strcmp(steps[i].arg[0], dir))
			return true;
	return false;
}

/* For as long as there is somebody who waits for us. */
static void wait_for_guard(struct cgroup_undo *u)
{
	unsigned us = 0;

	while (waitpid(u->guard, NULL, WNOHANG) == 0 && us < OUR_PAUSES * PAUSE_US) {
		usleep(1000);
		us += 1000;
	}
}

/* Its end is not waited for: the target stands still meanwhile. */
void cgroup_undo_keep(struct cgroup_undo *u)
{
	if (u->pipe < 0)
		return;
	(void)write_full(u->pipe, "k", 1);
	close(TAKE_FD(u->pipe));
}

void cgroup_undo_free(struct cgroup_undo *u, bool undo)
{
	if (!u)
		return;
	bool kept = u->pipe < 0;

	if (!undo)
		cgroup_undo_keep(u);
	else if (!kept)
		close(TAKE_FD(u->pipe));
	wait_for_guard(u);
	if (undo && kept)
		undo_all(u->list, u->n, OUR_PAUSES);
	free(u->list);
	free(u);
}
