/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version 1 has a tree of cgroups for the CPU alone: the target gets one of its own below the one it is in.
 * Version 2 has one tree for everything, in which a cgroup that holds processes cannot have children with
 * controllers: if the target has its cgroup to itself (a service), the limit is set there, and what was set
 * before is put back; else it gets one of its own beside it.
 *
 * Without that controller it is frozen and let go in turns, which every cgroup of version 2 can, and version
 * 1 has a tree of its own for: in a cgroup of its own below the one it is in.
 */
#include "engine/throttle.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "engine/throttle_internal.h"
#include "procfs/procfs.h"

#define LEAST 0.1 /* CPUs: what is hardly to be measured is taken for this */

static bool has_file(const char *dir, const char *file)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, file);

	return access(path, F_OK) == 0;
}

static char *cgroup_of(pid_t pid, const char *controller)
{
	cleanup_free char *path = proc_cgroup_path(pid, controller);

	return path ? proc_cgroup_dir(controller, path) : NULL;
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

static void note_places(struct throttle *t, const struct tree *tree, const char *controller)
{
	t->places = xcalloc(tree->n, sizeof(*t->places));
	for (size_t i = 0; i < tree->n; i++) {
		const struct process *p = tree->procs[i];
		char *dir = p->state == PROCESS_ZOMBIE ? NULL : cgroup_of(p->pid, controller);

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

/* The pid alone may be that of another process in another pid namespace. */
static char *own_dir(const char *base, const struct process *root)
{
	return xasprintf("%s/ferry-throttle-%d-%llu", base, root->pid, (unsigned long long)root->start_time);
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
	t->dir = own_dir(base, tree->procs[0]);
	t->own = true;
	return 0;
}

static int make_dir(const struct throttle *t, struct error *e)
{
	if (mkdir(t->dir, 0755) < 0 && errno != EEXIST)
		return error_set(e, errno, "make the cgroup %s", t->dir);
	return 0;
}

static int move_all(const struct throttle *t, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < t->n && r >= 0; i++) {
		r = throttle_move(t->places[i].pid, t->dir);
		if (r == -ESRCH)
			r = 0;
	}
	return r < 0 ? error_set(e, -r, "use the cgroup %s", t->dir) : 0;
}

static int make_group(const struct throttle *t, struct error *e)
{
	const char *file = t->v2 ? "cpu.max" : "cpu.cfs_quota_us";
	char period[16];
	int r = make_dir(t, e);

	if (r < 0)
		return r;
	if (!has_file(t->dir, file))
		return error_say(e, ENOTSUP, "the cgroup %s has no CPU limit (%s)", t->dir, file);
	snprintf(period, sizeof(period), "%d", PERIOD_US);
	r = t->v2 ? 0 : throttle_write(t->dir, "cpu.cfs_period_us", period);
	return r < 0 ? error_set(e, -r, "use the cgroup %s", t->dir) : move_all(t, e);
}

/* Through the CPU controller. */
static int limit_cpu(struct throttle *t, const struct tree *tree, struct error *e)
{
	cleanup_free char *v1 = proc_cgroup_path(tree->procs[0]->pid, "cpu");

	t->v2 = !v1; /* a controller is in one hierarchy only */
	note_places(t, tree, t->v2 ? "" : "cpu");
	if (!t->n || !*t->places[0].dir)
		return error_say(e, ENOTSUP, "the cgroup of process %d for the CPU is not to be seen here",
				 tree->procs[0]->pid);
	int r = choose_dir(t, tree, e);

	if (r >= 0)
		r = throttle_post_guard(t, e);
	return r >= 0 && t->own ? make_group(t, e) : r;
}

/* By the freezer, in a cgroup below its own: that takes nothing from it that others have set. */
static int freeze_in_turns(struct throttle *t, const struct tree *tree, bool v2, struct error *e)
{
	const char *file = v2 ? "cgroup.freeze" : "freezer.state";

	t->v2 = v2;
	note_places(t, tree, v2 ? "" : "freezer");
	if (!t->n || !*t->places[0].dir)
		return error_say(e, ENOTSUP, "its cgroup for the freezer is not to be seen here");
	for (size_t i = 1; v2 && i < t->n; i++)
		if (strcmp(t->places[i].dir, t->places[0].dir) != 0)
			return error_say(e, ENOTSUP, "its processes are in several cgroups");
	t->dir = own_dir(t->places[0].dir, tree->procs[0]);
	t->own = true;
	int r = pulse_new(&t->pulse, t->dir, e);

	if (r >= 0)
		r = throttle_post_guard(t, e);
	if (r >= 0)
		r = make_dir(t, e);
	if (r >= 0 && !has_file(t->dir, file))
		r = error_say(e, ENOTSUP, "the cgroup %s has no freezer (%s)", t->dir, file);
	return r < 0 ? r : move_all(t, e);
}

static struct throttle *throttle_empty(double full)
{
	struct throttle *t = xcalloc(1, sizeof(*t));

	t->pipe = -1;
	t->full = full;
	return t;
}

int throttle_new(struct throttle **ret, const struct tree *tree, bool may_freeze, struct error *e)
{
	double full = cpus_used(tree);
	struct throttle *t = throttle_empty(full);
	int r = limit_cpu(t, tree, e);

	for (int v2 = 0; r < 0 && may_freeze && v2 < 2; v2++) {
		struct error why = ERROR_INIT;

		throttle_free(t);
		t = throttle_empty(full);
		r = freeze_in_turns(t, tree, v2, &why);
		if (r >= 0)
			error_clear(e);
	}
	if (r < 0) {
		throttle_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

bool throttle_freezes(const struct throttle *t)
{
	return t->pulse != NULL;
}

double throttle_full(const struct throttle *t)
{
	return t->full;
}

int throttle_set(struct throttle *t, double cpus, struct error *e)
{
	if (t->pulse && !throttle_is_guarded(t))
		return error_say(e, ECHILD, "a process that sees to it has been killed");
	int r = throttle_limit(t, cpus);

	return r < 0 ? error_set(e, -r, "limit the cgroup %s to %.2f CPUs", t->dir, cpus) : 0;
}

void throttle_lift(struct throttle *t)
{
	(void)throttle_limit(t, 0);
}

void throttle_free(struct throttle *t)
{
	if (!t)
		return;
	throttle_relieve_guard(t);
	pulse_free(t->pulse);
	for (size_t i = 0; i < t->n; i++)
		free(t->places[i].dir);
	free(t->places);
	free(t->before);
	free(t->dir);
	free(t);
}
