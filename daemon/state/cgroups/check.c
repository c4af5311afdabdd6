/* SPDX-License-Identifier: Apache-2.0 */
/* Can the groups of a tree be had here?  Asked while it still runs at its source, and nothing is done. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"

static bool is_there(const char *dir)
{
	return access(dir, F_OK) == 0;
}

static bool has_word(const char *list, const char *word, size_t n)
{
	for (const char *p = list; *p;) {
		size_t length = strcspn(p, " ");

		if (length == n && !strncmp(p, word, n))
			return true;
		p += length;
		p += strspn(p, " ");
	}
	return false;
}

/* The nearest group above @dir that is there, malloc'ed. */
static char *nearest(const struct cgroup_tree *t, const char *dir)
{
	char *above = xstrdup(dir);

	while (strlen(above) > strlen(t->root) && !is_there(above))
		*strrchr(above, '/') = 0;
	return above;
}

static int check_writable(const char *dir, const char *file, const char *what, struct error *e)
{
	cleanup_free char *path = xasprintf("%s%s%s", dir, *file ? "/" : "", file);

	return access(path, W_OK) < 0 ? error_set(e, errno, "%s (%s)", what, path) : 0;
}

/* What is put there would not even stop for us. */
static bool is_frozen(const char *dir)
{
	cleanup_free char *v1 = cgroup_read(dir, "freezer.state"),
			  *events = xasprintf("%s/cgroup.events", dir), *v2 = NULL;

	if (v1)
		return strcmp(v1, "THAWED") != 0;
	return read_file(events, &v2) > 0 && strstr(v2, "frozen 1");
}

static int check_place(const struct cgroup_tree *t, const struct cgroup_place *p, enum cgroup_mode mode,
		       struct error *e)
{
	bool there = is_there(p->dir);

	if (there && mode == CGROUPS_STRICT && !p->made && p->path[1])
		return error_say(e, EEXIST, "the cgroup %s is there already (--manage-cgroups=strict)",
				 p->dir);
	if (there && is_frozen(p->dir))
		return error_say(e, EBUSY, "the cgroup %s is frozen", p->dir);
	if (there)
		return check_writable(p->dir, "cgroup.procs", "no process can be put into a cgroup", e);
	if (mode == CGROUPS_NONE || mode == CGROUPS_PROPS)
		return error_say(e, ENOENT, "the cgroup %s is not there (--manage-cgroups=%s makes none)",
				 p->dir, cgroup_mode_name(mode));
	cleanup_free char *above = nearest(t, p->dir);

	return check_writable(above, "", "no cgroup can be made", e);
}

/* Version 2: will the group have the controller?  If it is not there yet, its parent is to hand it on: one
 * that we make, or set, does if it has it, and any other as it is. */
static int check_controller(const struct cgroup_tree *t, const struct cgroup_place *p, const char *controller,
			    size_t n, enum cgroup_mode mode, struct error *e)
{
	cleanup_free char *above = nearest(t, p->dir);
	const struct cgroup_place *set = NULL;

	for (size_t i = 0; i < t->hierarchy->n_groups; i++)
		if (!strcmp(t->places[i].dir, above) && cgroup_sets(mode, &t->places[i]))
			set = &t->places[i];
	bool has = set || !strcmp(above, p->dir);
	cleanup_free char *list = cgroup_read(above, has ? "cgroup.controllers" : "cgroup.subtree_control");

	if (list && has_word(list, controller, n))
		return 0;
	return error_say(e, ENOTSUP, "the cgroup %s does not %s the controller %.*s (%s), which %s needs",
			 above, has ? "have" : "hand on", (int)n, controller,
			 has ? "cgroup.controllers" : "cgroup.subtree_control", p->path);
}

static int check_property(const struct cgroup_tree *t, const struct cgroup_place *p,
			  const Ferry__CgroupProperty *x, enum cgroup_mode mode, struct error *e)
{
	const struct cgroup_property *known = cgroup_property_find(x->name, t->v2);
	size_t n = cgroup_controller_length(x->name);

	if (!known || strchr(x->value, '\n'))
		return error_say(e, EBADMSG, "the property %s of the cgroup %s is not known here", x->name,
				 p->path);
	if (cgroup_property_is_default(known, x->value))
		return 0;
	if (known->list) {
		cleanup_free char *here = cgroup_read(t->root, x->name);

		if (!here || !*here) {
			cleanup_free char *name = xasprintf("%s.effective", x->name);

			free(here);
			here = cgroup_read(t->root, name);
		}
		if (here && !cgroup_list_within(x->value, here))
			return error_say(e, EINVAL, "%s of the cgroup %s is %s, but this machine has %s",
					 x->name, p->path, x->value, here);
	}
	if (is_there(p->dir)) {
		cleanup_free char *file = xasprintf("%s/%s", p->dir, x->name);

		return access(file, W_OK) < 0
			       ? error_set(e, errno, "%s of the cgroup %s cannot be set", x->name, p->dir)
			       : 0;
	}
	if (!t->v2 || !strncmp(x->name, "cgroup.", 7))
		return 0;
	return check_controller(t, p, x->name, n, mode, e);
}

int cgroup_plan_check(const struct cgroup_plan *plan, enum cgroup_mode mode, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < plan->record->n_hierarchies && r >= 0; i++) {
		const struct cgroup_tree *t = &plan->trees[i];

		for (size_t j = 0; j < t->hierarchy->n_groups && r >= 0; j++) {
			const struct cgroup_place *p = &t->places[j];
			/* It is going to be made, and then it is ours to set. */
			bool sets = cgroup_sets(mode, p) || (mode == CGROUPS_SOFT && !is_there(p->dir));

			r = check_place(t, p, mode, e);
			for (size_t k = 0; sets && k < p->group->n_properties && r >= 0; k++)
				if (strcmp(p->group->properties[k]->name, "cgroup.subtree_control") != 0)
					r = check_property(t, p, p->group->properties[k], mode, e);
		}
	}
	return r;
}
