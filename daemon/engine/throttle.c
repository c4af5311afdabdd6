/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version 1 has a tree of cgroups for the CPU alone: the target gets one of its own below the one it is in.
 * Version 2 has one tree for everything, in which a cgroup that holds processes cannot have children with
 * controllers: if the target has its cgroup to itself (a service), the limit is set there, and what was set
 * before is put back; else it gets one of its own beside it.
 *
 * The guard is forked before anything is changed.  It knows what is to be undone, and waits for the end of a
 * pipe that only we hold: that comes when we say so, and when we are killed.
 */
#include "engine/throttle.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/util.h"
#include "procfs/procfs.h"

#define PERIOD_US 20000 /* short: the pauses are not to be felt as such */
#define MIN_US    1000  /* of a period, the least that the kernel takes */
#define LEAST     0.1   /* CPUs: what is hardly to be measured is taken for this */

struct place {
	pid_t pid;
	uint64_t start;
	char *dir; /* where it was */
};

struct throttle {
	bool v2;
	bool own;     /* a cgroup made by us, in which they are now */
	char *dir;    /* the one that is limited */
	char *before; /* its cpu.max, if it is not ours */
	struct place *places;
	size_t n;
	double full;
	int pipe; /* its end is what the guard waits for */
	pid_t guard;
};

/* --- cgroups ------------------------------------------------------------------------------------------ */

static int write_text(const char *dir, const char *file, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, file);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : write_full(fd, text, strlen(text));
}

static bool has_file(const char *dir, const char *file)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, file);

	return access(path, F_OK) == 0;
}

static char *cgroup_of(pid_t pid, bool v2)
{
	const char *controller = v2 ? "" : "cpu";
	cleanup_free char *path = proc_cgroup_path(pid, controller);

	return path ? proc_cgroup_dir(controller, path) : NULL;
}

static int limit(const struct throttle *t, double cpus)
{
	long us = cpus > 0 ? MAX((long)(cpus * PERIOD_US), MIN_US) : -1;
	cleanup_free char *text = NULL;

	if (!t->v2) {
		text = xasprintf("%ld", us);
		return write_text(t->dir, "cpu.cfs_quota_us", text);
	}
	if (us < 0 && t->before)
		return write_text(t->dir, "cpu.max", t->before);
	text = us < 0 ? xasprintf("max %d", PERIOD_US) : xasprintf("%ld %d", us, PERIOD_US);
	return write_text(t->dir, "cpu.max", text);
}

static int move(pid_t pid, const char *dir)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return write_text(dir, "cgroup.procs", text);
}

/* --- undoing ------------------------------------------------------------------------------------------ */

static const char *home_of(const struct throttle *t, pid_t pid)
{
	struct proc_stat st;
	struct error ignore = ERROR_INIT;

	for (size_t i = 0; i < t->n; i++)
		if (t->places[i].pid == pid && proc_stat_read(pid, 0, &st, &ignore) == 0 &&
		    st.start_time == t->places[i].start)
			return t->places[i].dir;
	return t->places[0].dir; /* born since */
}

static void move_home(const struct throttle *t)
{
	cleanup_free char *procs = xasprintf("%s/cgroup.procs", t->dir);

	/* Some may be born while we move their parents. */
	for (int pass = 0; pass < 100; pass++) {
		cleanup_free char *text = NULL;
		char *save = NULL;

		if (read_file(procs, &text) <= 0)
			return;
		for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			(void)move(atoi(line), home_of(t, atoi(line)));
	}
}

static void undo(const struct throttle *t)
{
	(void)limit(t, 0);
	if (!t->own)
		return;
	move_home(t);
	/* The dead leave it a moment later. */
	for (int i = 0; i < 500 && rmdir(t->dir) < 0 && errno == EBUSY; i++)
		usleep(10000);
}

static void __attribute__((noreturn)) stand_guard(const struct throttle *t, int end)
{
	char c;

	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (dup2(end, 0) < 0 || close_range(1, ~0u, 0) < 0)
		_exit(1);
	while (read(0, &c, 1) < 0 && errno == EINTR)
		;
	undo(t);
	_exit(0);
}

static int post_guard(struct throttle *t, struct error *e)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(e, errno, "make a pipe");
	t->guard = fork();
	if (t->guard == 0) {
		close(ends[1]);
		stand_guard(t, ends[0]);
	}
	close(ends[0]);
	if (t->guard < 0) {
		close(ends[1]);
		return error_set(e, errno, "start a process that undoes the throttling");
	}
	t->pipe = ends[1];
	return 0;
}

/* --- making ------------------------------------------------------------------------------------------- */

static double ticks_used(const struct tree *tree)
{
	double ticks = 0;

	for (size_t i = 0; i < tree->n; i++) {
		struct proc_stat st;
		struct error ignore = ERROR_INIT;

		if (proc_stat_read(tree->procs[i]->pid, 0, &st, &ignore) == 0)
			ticks += st.cpu_ticks;
	}
	return ticks;
}

/* What it uses now: it has been busy all the time, so a short look is good enough. */
static double cpus_used(const struct tree *tree)
{
	double before = ticks_used(tree), hz = sysconf(_SC_CLK_TCK);
	uint64_t t0 = now_ns();

	usleep(100000);
	double cpus = (ticks_used(tree) - before) / hz / ((now_ns() - t0) / 1e9);

	return MAX(cpus, LEAST);
}

static void note_places(struct throttle *t, const struct tree *tree)
{
	t->places = xcalloc(tree->n, sizeof(*t->places));
	for (size_t i = 0; i < tree->n; i++) {
		const struct process *p = tree->procs[i];
		char *dir = p->state == PROCESS_ZOMBIE ? NULL : cgroup_of(p->pid, t->v2);

		if (dir)
			t->places[t->n++] = (struct place){p->pid, p->start_time, dir};
	}
}

/* Does the cgroup hold the tree and nothing else? */
static bool has_it_alone(const struct throttle *t, const char *dir)
{
	cleanup_free char *procs = xasprintf("%s/cgroup.procs", dir), *text = NULL;
	char *save = NULL;

	for (size_t i = 0; i < t->n; i++)
		if (strcmp(t->places[i].dir, dir))
			return false;
	if (read_file(procs, &text) <= 0)
		return false;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		bool ours = false;

		for (size_t i = 0; i < t->n && !ours; i++)
			ours = t->places[i].pid == atoi(line);
		if (!ours)
			return false;
	}
	return true;
}

static int choose_dir(struct throttle *t, const struct tree *tree, struct error *e)
{
	const char *home = t->places[0].dir;

	if (t->v2 && has_file(home, "cpu.max") && has_it_alone(t, home)) {
		cleanup_free char *path = xasprintf("%s/cpu.max", home);

		t->dir = xstrdup(home);
		return read_file(path, &t->before) > 0 ? 0 : error_set(e, errno, "read %s", path);
	}
	cleanup_free char *base = xstrdup(home);

	if (t->v2 && has_file(home, "cpu.max"))
		*strrchr(base, '/') = 0; /* beside it */
	t->dir = xasprintf("%s/ferry-throttle-%d", base, tree->procs[0]->pid);
	t->own = true;
	return 0;
}

static int make_group(struct throttle *t, struct error *e)
{
	const char *file = t->v2 ? "cpu.max" : "cpu.cfs_quota_us";
	char period[16];

	if (mkdir(t->dir, 0755) < 0 && errno != EEXIST)
		return error_set(e, errno, "make the cgroup %s", t->dir);
	if (!has_file(t->dir, file))
		return error_say(e, ENOTSUP, "the cgroup %s has no CPU limit (%s)", t->dir, file);
	snprintf(period, sizeof(period), "%d", PERIOD_US);
	int r = t->v2 ? 0 : write_text(t->dir, "cpu.cfs_period_us", period);

	for (size_t i = 0; i < t->n && r >= 0; i++) {
		r = move(t->places[i].pid, t->dir);
		if (r == -ESRCH)
			r = 0;
	}
	return r < 0 ? error_set(e, -r, "use the cgroup %s", t->dir) : 0;
}

int throttle_new(struct throttle **ret, const struct tree *tree, struct error *e)
{
	struct throttle *t = xcalloc(1, sizeof(*t));
	cleanup_free char *v1 = proc_cgroup_path(tree->procs[0]->pid, "cpu");
	int r;

	t->pipe = -1;
	t->v2 = !v1; /* a controller is in one hierarchy only */
	note_places(t, tree);
	if (!t->n || !*t->places[0].dir)
		r = error_say(e, ENOTSUP, "the cgroup of process %d for the CPU is not to be seen here",
			      tree->procs[0]->pid);
	else
		r = choose_dir(t, tree, e);
	if (r >= 0)
		t->full = cpus_used(tree);
	if (r >= 0)
		r = post_guard(t, e);
	if (r >= 0 && t->own)
		r = make_group(t, e);
	if (r < 0) {
		throttle_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

double throttle_full(const struct throttle *t)
{
	return t->full;
}

int throttle_set(struct throttle *t, double cpus, struct error *e)
{
	int r = limit(t, cpus);

	return r < 0 ? error_set(e, -r, "limit the cgroup %s to %.2f CPUs", t->dir, cpus) : 0;
}

void throttle_lift(struct throttle *t)
{
	(void)limit(t, 0);
}

void throttle_free(struct throttle *t)
{
	int status = 0;

	if (!t)
		return;
	if (t->guard > 0) {
		close(t->pipe);
		while (waitpid(t->guard, &status, 0) < 0 && errno == EINTR)
			;
		if (!WIFEXITED(status) || WEXITSTATUS(status)) /* killed: then it is up to us */
			undo(t);
	}
	for (size_t i = 0; i < t->n; i++)
		free(t->places[i].dir);
	free(t->places);
	free(t->before);
	free(t->dir);
	free(t);
}
