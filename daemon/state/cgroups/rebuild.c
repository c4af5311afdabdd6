/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups are made when the first skeleton is, and each skeleton is put into its own as soon as it is there.
 * At the end, when all of the state is known, what has changed since is made good, and the values are set.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"

int cgroups_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m, struct error *e)
{
	struct cgroup_plan *plan;
	int x = cgroup_plan_get(r, &plan, e);

	(void)pid;
	(void)tid;
	(void)m;
	return x < 0 || !plan ? x : cgroup_plan_check(plan, r->options->cgroups, e);
}

/* --- making -----------------------------------------------------------------------------------------------
 */

static int set_value(struct cgroup_plan *plan, const char *dir, const char *name, const char *value,
		     const char *was, struct error *e)
{
	int r = cgroup_undo_value(plan->undo, dir, name, was, e);

	if (r < 0)
		return r;
	r = cgroup_write(dir, name, value);
	return r < 0 ? error_set(e, -r, "set %s of the cgroup %s to \"%s\"", name, dir, value) : 0;
}

/* Version 1: a cpuset without CPUs and memory takes nobody. */
static int fill_cpuset(const char *dir, struct error *e)
{
	static const char *const names[] = {"cpuset.cpus", "cpuset.mems"};
	cleanup_free char *above = strndup(dir, (size_t)(strrchr(dir, '/') - dir));

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_free char *is = cgroup_read(dir, names[i]), *theirs = cgroup_read(above, names[i]);
		int r = is && !*is && theirs ? cgroup_write(dir, names[i], theirs) : 0;

		if (r < 0)
			return error_set(e, -r, "set %s of the cgroup %s", names[i], dir);
	}
	return 0;
}

static int make_dir(struct cgroup_plan *plan, const struct cgroup_tree *t, const char *dir, struct error *e)
{
	if (access(dir, F_OK) == 0)
		return 0;
	int r = cgroup_undo_made(plan->undo, dir, e);

	if (r >= 0 && mkdir(dir, 0755) < 0) {
		r = -errno;
		if (cgroup_undo_not(plan->undo, e) < 0)
			return -EPIPE;
		/* Somebody else was quicker. */
		return r == -EEXIST ? 0 : error_set(e, -r, "make the cgroup %s", dir);
	}
	if (r < 0)
		return r;
	r = t->v2 ? 0 : fill_cpuset(dir, e);
	return r < 0 ? r : 1;
}

/* Switch controllers on for the groups below @dir. */
static int hand_on(struct cgroup_plan *plan, const char *dir, const char *controllers, struct error *e)
{
	cleanup_free char *words = xstrdup(controllers);
	char *save = NULL;
	int r = 0;

	for (char *word = strtok_r(words, " ", &save); word && r >= 0; word = strtok_r(NULL, " ", &save)) {
		cleanup_free char *is = cgroup_read(dir, "cgroup.subtree_control"),
				  *on = xasprintf("+%s", word), *off = xasprintf("-%s", word),
				  *list = xasprintf(" %s ", is ? is : ""), *key = xasprintf(" %s ", word);

		if (!strstr(list, key))
			r = set_value(plan, dir, "cgroup.subtree_control", on, off, e);
	}
	return r;
}

static const char *value_of(const Ferry__CgroupGroup *g, const char *name)
{
	for (size_t i = 0; i < g->n_properties; i++)
		if (!strcmp(g->properties[i]->name, name))
			return g->properties[i]->value;
	return NULL;
}

/* What the base must be handed by the groups above it: the controllers of its values, and those that it hands
 * on itself. */
static char *wanted_controllers(const Ferry__CgroupGroup *g)
{
	const char *on = value_of(g, "cgroup.subtree_control");
	char *list = xstrdup(on ? on : "");

	for (size_t i = 0; i < g->n_properties; i++) {
		const Ferry__CgroupProperty *x = g->properties[i];
		const struct cgroup_property *known = cgroup_property_find(x->name, true);

		if (!known || !strncmp(x->name, "cgroup.", 7) || cgroup_property_is_default(known, x->value))
			continue;
		char *longer = xasprintf("%s %.*s", list, (int)cgroup_controller_length(x->name), x->name);

		free(list);
		list = longer;
	}
	return list;
}

/* The groups above the base, that are no part of the record. */
static int make_way(struct cgroup_plan *plan, const struct cgroup_tree *t, struct error *e)
{
	cleanup_free char *dir = xstrdup(t->places[0].dir);

	if (!t->base[1])
		return 0;
	cleanup_free char *controllers = t->v2 ? wanted_controllers(t->places[0].group) : NULL;
	int r = 0;

	for (char *p = dir + strlen(t->root) + 1; (p = strchr(p, '/')) && r >= 0; p++) {
		*p = 0;
		r = make_dir(plan, t, dir, e);
		if (r > 0 && t->v2)
			r = hand_on(plan, dir, controllers, e);
		*p = '/';
	}
	return MIN(r, 0);
}

static int own(const struct cgroup_place *p, struct error *e)
{
	static const char *const files[] = {"cgroup.procs", "tasks", "cgroup.threads",
					    "cgroup.subtree_control"};
	const Ferry__CgroupGroup *g = p->group;

	if ((g->uid || g->gid) && chown(p->dir, g->uid, g->gid) < 0)
		return error_set(e, errno, "give the cgroup %s to user %u", p->dir, g->uid);
	if (chmod(p->dir, g->mode & 07777) < 0)
		return error_set(e, errno, "set the mode of the cgroup %s", p->dir);
	for (size_t i = 0; g->delegated && (g->uid || g->gid) && i < ARRAY_SIZE(files); i++) {
		cleanup_free char *path = xasprintf("%s/%s", p->dir, files[i]);

		if (chown(path, g->uid, g->gid) < 0 && errno != ENOENT)
			return error_set(e, errno, "give %s to user %u", path, g->uid);
	}
	return 0;
}

/* Its values: only those that it needs to take processes, or the others. */
static int set_values(struct cgroup_plan *plan, const struct cgroup_tree *t, const struct cgroup_place *p,
		      bool early, struct error *e)
{
	int r = 0;

	/* A second time: some values may only be set after others (a limit of memory, and of memory with
	 * swap). */
	for (int pass = 0; pass < 2; pass++) {
		error_clear(e);
		r = 0;
		for (size_t i = 0; i < cgroup_n_properties; i++) {
			const struct cgroup_property *known = &cgroup_properties[i];
			const char *value = known->v2 == t->v2 ? value_of(p->group, known->name) : NULL;

			if (!value || (early && !known->early))
				continue;
			cleanup_free char *is = cgroup_read(p->dir, known->name);

			if (is ? !strcmp(is, value) : cgroup_property_is_default(known, value))
				continue;
			int x = set_value(plan, p->dir, known->name, value, is ? is : "", e);

			if (x < 0)
				r = x;
		}
		if (r >= 0)
			return 0;
	}
	return r;
}

static int make_tree(struct cgroup_plan *plan, const struct cgroup_tree *t, enum cgroup_mode mode,
		     struct error *e)
{
	bool makes = mode != CGROUPS_NONE && mode != CGROUPS_PROPS;
	int r = makes ? make_way(plan, t, e) : 0;

	for (size_t i = 0; i < t->hierarchy->n_groups && r >= 0; i++) {
		struct cgroup_place *p = &t->places[i];

		r = makes ? make_dir(plan, t, p->dir, e) : 0;
		if (r > 0) {
			p->made = true;
			r = own(p, e);
		}
		if (r < 0 || !cgroup_sets(mode, p))
			continue;
		const char *on = value_of(p->group, "cgroup.subtree_control");

		if (t->v2 && on)
			r = hand_on(plan, p->dir, on, e);
		if (r >= 0)
			r = set_values(plan, t, p, true, e);
	}
	return MIN(r, 0);
}

static int make_all(struct cgroup_plan *plan, enum cgroup_mode mode, struct error *e)
{
	int r = plan->undo ? 0 : cgroup_undo_new(&plan->undo, e);

	for (size_t i = 0; i < plan->record->n_hierarchies && r >= 0; i++)
		r = make_tree(plan, &plan->trees[i], mode, e);
	return r;
}

/* --- members ------------------------------------------------------------------------------------------- */

static const Ferry__CgroupMember *member(const struct cgroup_plan *plan, pid_t pid)
{
	for (size_t i = 0; i < plan->record->n_members; i++)
		if (plan->record->members[i]->pid == pid)
			return plan->record->members[i];
	return NULL;
}

static bool is_in(const char *text, const struct cgroup_tree *t, const char *path)
{
	cleanup_free char *line = xasprintf(":%s:%s\n", t->hierarchy->controllers, path);

	return strstr(text, line) != NULL;
}

static int move(const struct cgroup_plan *plan, const Ferry__CgroupMember *m, struct error *e)
{
	cleanup_free char *file = xasprintf("/proc/%d/cgroup", m->pid), *text = NULL;
	char number[16];

	if (read_file(file, &text) < 0)
		return error_set(e, ESRCH, "look at the cgroups of pid %d", m->pid);
	snprintf(number, sizeof(number), "%d", m->pid);
	for (size_t i = 0; i < m->n_groups; i++) {
		const struct cgroup_tree *t = &plan->trees[i];
		const struct cgroup_place *p = &t->places[m->groups[i]];
		int r = is_in(text, t, p->path) ? 0 : cgroup_write(p->dir, "cgroup.procs", number);

		if (r < 0)
			return error_set(e, -r, "put pid %d into the cgroup %s", m->pid, p->dir);
	}
	return 0;
}

int cgroups_place(struct rebuild *r, pid_t pid, struct error *e)
{
	struct cgroup_plan *plan;
	int x = cgroup_plan_get(r, &plan, e);

	if (x < 0 || !plan)
		return x;
	const Ferry__CgroupMember *m = member(plan, pid);

	x = make_all(plan, r->options->cgroups, e);
	return x < 0 || !m ? x : move(plan, m, e);
}

int cgroups_prepare(struct rebuild *r, const ProtobufCMessage *msg, struct error *e)
{
	struct cgroup_plan *plan;
	int x = cgroup_plan_get(r, &plan, e);

	(void)msg;
	if (x < 0 || !plan)
		return x;
	x = make_all(plan, r->options->cgroups, e);
	for (size_t i = 0; i < plan->record->n_members && x >= 0; i++)
		if (tree_find(r->tree, plan->record->members[i]->pid))
			x = move(plan, plan->record->members[i], e);
	for (size_t i = 0; i < plan->record->n_hierarchies && x >= 0; i++) {
		struct cgroup_tree *t = &plan->trees[i];

		for (size_t j = 0; j < t->hierarchy->n_groups && x >= 0; j++)
			if (cgroup_sets(r->options->cgroups, &t->places[j]))
				x = set_values(plan, t, &t->places[j], false, e);
	}
	return x;
}
