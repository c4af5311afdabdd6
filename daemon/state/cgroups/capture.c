/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the processes are is one line for each hierarchy in /proc/PID/cgroup, and most processes of a tree
 * have the same lines: each text is looked at once.  The text of every thread is read, too: one that is in
 * another group than its process could not be put there.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"
#include "state/task/message.h"

#define TRIES 3 /* a process that is moved while it is looked at */

struct where { /* of the processes with the same text */
	char *text;
	uint32_t *groups; /* of each hierarchy of the record */
};

struct scan {
	struct capture *c;
	Ferry__Cgroups *m;
	struct where *where;
	size_t n_where;
};

/* --- places -----------------------------------------------------------------------------------------------
 */

static char *text_of(pid_t pid, pid_t tid)
{
	cleanup_free char *path = xasprintf("/proc/%d/task/%d/cgroup", pid, tid);
	char *text = NULL;

	return read_file(path, &text) < 0 ? NULL : text;
}

/* The text that all threads of a process have. *ret NULL: it has ended. 1: they differ. */
static int common_text(const struct process *p, char **ret, struct error *e)
{
	pid_t first = 0;

	*ret = NULL;
	for (size_t i = 0; i < p->n_threads; i++) {
		pid_t tid = p->threads[i]->task.tid;
		cleanup_free char *text = tid == p->pid && p->living ? NULL : text_of(p->pid, tid);

		if (!text)
			continue;
		if (!*ret) {
			*ret = TAKE_PTR(text);
			first = tid;
		} else if (strcmp(*ret, text)) {
			error_clear(e);
			error_say(e, EOPNOTSUPP,
				  "pid %d: its threads %d and %d are in different cgroups, which cannot be "
				  "moved (--manage-cgroups=ignore leaves cgroups out)",
				  p->pid, first, tid);
			free(TAKE_PTR(*ret));
			return 1;
		}
	}
	return 0;
}

static int find_where(struct scan *s, const struct process *p, size_t *ret, struct error *e)
{
	cleanup_free char *text = NULL;
	int r = 1;

	for (int i = 0; i < TRIES && r > 0; i++)
		r = common_text(p, &text, e);
	if (r > 0)
		return -EOPNOTSUPP;
	error_clear(e);
	if (!text)
		return -ESRCH;
	for (*ret = 0; *ret < s->n_where; (*ret)++)
		if (!strcmp(s->where[*ret].text, text))
			return 0;
	s->where = xrealloc(s->where, (s->n_where + 1) * sizeof(*s->where));
	s->where[s->n_where++] = (struct where){.text = TAKE_PTR(text)};
	return 0;
}

/* Its part of the text, malloc'ed. */
static char *path_in(const char *text, const char *controllers)
{
	size_t n = strlen(controllers);

	for (const char *line = text; line && *line;
	     line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		const char *list = strchr(line, ':');

		if (list && !strncmp(list + 1, controllers, n) && list[1 + n] == ':')
			return strndup(list + 2 + n, strcspn(list + 2 + n, "\n"));
	}
	return NULL;
}

/* --- hierarchies ------------------------------------------------------------------------------------------
 */

/* How much of @a both have, in whole names: "/a" of "/a/b" and "/a/bc". 0: nothing but "/". */
static size_t common_length(const char *a, const char *b)
{
	size_t whole = 0;

	if (!a[1] || !b[1]) /* "/" */
		return 0;
	for (size_t i = 0;; i++) {
		bool a_ends = !a[i] || a[i] == '/', b_ends = !b[i] || b[i] == '/';

		if (i && a_ends && b_ends)
			whole = i;
		if (!a[i] || a[i] != b[i])
			return whole;
	}
}

static int check_path(const char *controllers, const char *path, struct error *e)
{
	size_t n = strlen(path);

	if (!strncmp(path, "/..", 3))
		return error_say(e, EOPNOTSUPP,
				 "the cgroup %s (%s) of the tree is outside of ferry's cgroup namespace",
				 path, *controllers ? controllers : "version 2");
	if (n > 10 && !strcmp(path + n - 10, " (deleted)"))
		return error_say(e, EOPNOTSUPP, "the cgroup %s (%s) of the tree is deleted", path,
				 *controllers ? controllers : "version 2");
	if (!cgroup_path_ok(path))
		return error_say(e, EOPNOTSUPP, "the cgroup %s of the tree has a name that is not understood",
				 path);
	return 0;
}

/* The nearest group that all are in or below; or the one that the caller names. */
static int find_base(struct scan *s, Ferry__CgroupHierarchy *h, struct error *e)
{
	cleanup_free char *named = cgroup_root_of(s->c->options->cgroup_base, h->controllers);

	for (size_t i = 0; i < s->n_where; i++) {
		cleanup_free char *path = path_in(s->where[i].text, h->controllers);
		size_t n;
		int r;

		if (!path)
			return error_say(e, ESTALE, "the hierarchies of cgroups have just changed");
		r = check_path(h->controllers, path, e);
		if (r < 0)
			return r;
		if (!h->top)
			h->top = xstrdup(path);
		n = common_length(h->top, path);
		h->top[n ? n : 1] = 0;
	}
	if (!named || !strcmp(named, "/") || !strcmp(named, h->top)) {
		if (named)
			strcpy(h->top, named);
		return 0;
	}
	if (common_length(named, h->top) != strlen(named))
		return error_say(e, EINVAL,
				 "--cgroup-root: the tree is not in or below the cgroup %s (%s), but in %s",
				 named, *h->controllers ? h->controllers : "version 2", h->top);
	h->top[strlen(named)] = 0;
	return 0;
}

static void add_property(Ferry__CgroupGroup *g, const char *name, char *value)
{
	Ferry__CgroupProperty *p = MESSAGE_NEW(Ferry__CgroupProperty, ferry__cgroup_property);

	p->name = xstrdup(name);
	p->value = value;
	g->properties = xrealloc(g->properties, (g->n_properties + 1) * sizeof(*g->properties));
	g->properties[g->n_properties++] = p;
}

static void read_properties(Ferry__CgroupGroup *g, const char *controllers, const char *dir)
{
	bool v2 = !*controllers;
	char *value = v2 ? cgroup_read(dir, "cgroup.subtree_control") : NULL;

	if (value)
		add_property(g, "cgroup.subtree_control", value);
	for (size_t i = 0; i < cgroup_n_properties; i++) {
		const struct cgroup_property *p = &cgroup_properties[i];

		value = p->v2 == v2 ? cgroup_read(dir, p->name) : NULL;
		/* A group that is idle (cpu.idle) has a weight of 0, which nobody can set. */
		if (value && !(!strcmp(p->name, "cpu.weight") && !strcmp(value, "0")))
			add_property(g, p->name, value);
		else
			free(value);
	}
}

static int read_group(Ferry__CgroupGroup *g, const char *controllers, const char *dir, struct error *e)
{
	cleanup_free char *type = *controllers ? NULL : cgroup_read(dir, "cgroup.type");
	cleanup_free char *procs = xasprintf("%s/cgroup.procs", dir);
	struct stat st, in;

	if (type && !strcmp(type, "threaded"))
		return error_say(e, EOPNOTSUPP,
				 "the cgroup %s is for single threads (cgroup.type), which cannot be moved "
				 "(--manage-cgroups=ignore leaves cgroups out)",
				 dir);
	if (stat(dir, &st) < 0)
		return error_set(e, errno, "look at the cgroup %s", dir);
	g->uid = st.st_uid;
	g->gid = st.st_gid;
	g->mode = st.st_mode & 07777;
	g->delegated = stat(procs, &in) == 0 && in.st_uid == st.st_uid;
	read_properties(g, controllers, dir);
	return 0;
}

/* The number of the group in @h; it and those between it and the base are added. -errno. */
static int add_group(struct scan *s, Ferry__CgroupHierarchy *h, const char *below, struct error *e)
{
	for (size_t i = 0; i < h->n_groups; i++)
		if (!strcmp(h->groups[i]->path, below))
			return (int)i;
	if (*below) {
		cleanup_free char *above = strndup(below, (size_t)(strrchr(below, '/') - below));
		int r = add_group(s, h, above, e);

		if (r < 0)
			return r;
	}
	Ferry__CgroupGroup *g = MESSAGE_NEW(Ferry__CgroupGroup, ferry__cgroup_group);

	g->path = xstrdup(below);
	h->groups = xrealloc(h->groups, (h->n_groups + 1) * sizeof(*h->groups));
	h->groups[h->n_groups++] = g;
	cleanup_free char *path = xasprintf("%s%s", h->top[1] ? h->top : "", below);
	const char *dir = cgroup_seen_dir(s->c, h->controllers, *path ? path : "/");

	if (!*path) /* of the machine: there is nothing to set */
		return (int)h->n_groups - 1;
	int r = dir ? read_group(g, h->controllers, dir, e)
		    : error_say(e, ENOENT, "the cgroup %s is not to be seen here", path);

	return r < 0 ? r : (int)h->n_groups - 1;
}

static int add_hierarchy(struct scan *s, const char *controllers, struct error *e)
{
	Ferry__CgroupHierarchy *h = MESSAGE_NEW(Ferry__CgroupHierarchy, ferry__cgroup_hierarchy);
	size_t k = s->m->n_hierarchies;

	h->controllers = xstrdup(controllers);
	h->top = NULL;
	s->m->hierarchies = xrealloc(s->m->hierarchies, (k + 1) * sizeof(*s->m->hierarchies));
	s->m->hierarchies[s->m->n_hierarchies++] = h;
	int r = find_base(s, h, e);

	if (!h->top)
		h->top = xstrdup("/");
	if (r >= 0)
		r = add_group(s, h, "", e);
	for (size_t i = 0; i < s->n_where && r >= 0; i++) {
		cleanup_free char *path = path_in(s->where[i].text, controllers);
		size_t n = h->top[1] ? strlen(h->top) : 0;

		r = path ? add_group(s, h, path[n + 0] && path[1] ? path + n : "", e) : -ESTALE;
		s->where[i].groups = xrealloc(s->where[i].groups, (k + 1) * sizeof(uint32_t));
		s->where[i].groups[k] = r < 0 ? 0 : (uint32_t)r;
	}
	return r;
}

static int add_hierarchies(struct scan *s, struct error *e)
{
	cleanup_free char *text = s->n_where ? xstrdup(s->where[0].text) : NULL;
	char *save = NULL;
	int r = 0;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line && r >= 0;
	     line = strtok_r(NULL, "\n", &save)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		if (!path)
			continue;
		*path = 0;
		/* One that is not mounted here is nobody's to manage from here. */
		if (cgroup_seen_dir(s->c, list + 1, path + 1) || strstr(path + 1, "/.."))
			r = add_hierarchy(s, list + 1, e);
	}
	return r;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static int add_members(struct scan *s, struct error *e)
{
	const struct tree *t = s->c->tree;
	cleanup_free size_t *which = xcalloc(t->n, sizeof(*which));
	cleanup_free bool *is = xcalloc(t->n, sizeof(*is));
	int r = 0;

	for (size_t i = 0; i < t->n; i++) {
		r = t->procs[i]->state == PROCESS_ZOMBIE ? -ESRCH : find_where(s, t->procs[i], &which[i], e);
		is[i] = r >= 0;
		if (r < 0 && r != -ESRCH)
			return r;
	}
	r = add_hierarchies(s, e);
	s->m->members = xcalloc(t->n + 1, sizeof(*s->m->members));
	for (size_t i = 0; i < t->n && r >= 0; i++) {
		if (!is[i])
			continue;
		Ferry__CgroupMember *m = MESSAGE_NEW(Ferry__CgroupMember, ferry__cgroup_member);
		size_t size = s->m->n_hierarchies * sizeof(uint32_t);

		m->pid = t->procs[i]->pid;
		m->n_groups = s->m->n_hierarchies;
		m->groups = size ? xmemdup(s->where[which[i]].groups, size) : NULL;
		s->m->members[s->m->n_members++] = m;
	}
	return r;
}

static int scan(struct capture *c, Ferry__Cgroups **ret, struct error *e)
{
	struct scan s = {.c = c, .m = MESSAGE_NEW(Ferry__Cgroups, ferry__cgroups)};
	int r = add_members(&s, e);

	for (size_t i = 0; i < s.n_where; i++) {
		free(s.where[i].text);
		free(s.where[i].groups);
	}
	free(s.where);
	if (r < 0)
		ferry__cgroups__free_unpacked(s.m, NULL);
	else
		*ret = s.m;
	return r < 0 ? r : 0;
}

static int capture_preflight(struct capture *c, struct process *p, struct error *e)
{
	Ferry__Cgroups *m;

	if (p != c->tree->procs[0] || c->tree->frozen || c->options->cgroups == CGROUPS_IGNORE)
		return 0;
	int r = scan(c, &m, e);

	if (r >= 0)
		ferry__cgroups__free_unpacked(m, NULL);
	return r;
}

static int put(struct capture *c, struct error *e)
{
	Ferry__Cgroups *m;

	if (c->options->cgroups == CGROUPS_IGNORE)
		return 0;
	int r = scan(c, &m, e);

	if (r >= 0)
		snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_CGROUPS, 0, 0, &m->base);
	return r;
}

static int capture_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	(void)p;
	(void)t;
	return put(c, e);
}

static int capture_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
			struct error *e)
{
	(void)p;
	(void)t;
	(void)b;
	(void)state;
	return put(c, e);
}

const struct state_kind kind_cgroups = {
	.name = "cgroups/cgroups",
	.type = FERRY__RECORD_TYPE__RECORD_CGROUPS,
	.scope = KIND_TREE,
	.descriptor = &ferry__cgroups__descriptor,
	.preflight = capture_preflight,
	.take_warm = capture_take_warm,
	.take = capture_take,
	.check = cgroups_check,
	.prepare = cgroups_prepare,
};
