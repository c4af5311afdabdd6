/* SPDX-License-Identifier: Apache-2.0 */
/* A record as it is to be here: where its hierarchies are mounted, which directories its groups are. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/cgroups/cgroups.h"

static const char *name_of(const struct cgroup_tree *t)
{
	return t->v2 ? "version 2" : t->hierarchy->controllers;
}

static void plan_clear(struct cgroup_plan *p)
{
	for (size_t i = 0; p->record && p->trees && i < p->record->n_hierarchies; i++) {
		struct cgroup_tree *t = &p->trees[i];

		for (size_t j = 0; t->places && j < t->hierarchy->n_groups; j++) {
			free(t->places[j].path);
			free(t->places[j].dir);
		}
		free(t->places);
		free(t->root);
		free(t->base);
	}
	free(TAKE_PTR(p->trees));
	if (p->record)
		ferry__cgroups__free_unpacked(TAKE_PTR(p->record), NULL);
}

static int see_tree(struct cgroup_tree *t, const Ferry__CgroupHierarchy *h, const char *roots,
		    struct error *e)
{
	char *named = cgroup_root_of(roots, h->controllers);

	t->hierarchy = h;
	t->v2 = !*h->controllers;
	t->base = named ? named : xstrdup(h->top);
	t->root = proc_cgroup_dir(h->controllers, "/");
	if (!t->root)
		return error_say(e, ENOENT,
				 "the cgroup hierarchy of the program's (%s) is not mounted here "
				 "(--manage-cgroups)",
				 name_of(t));
	if (!cgroup_path_ok(t->base) || !h->n_groups || *h->groups[0]->path)
		return error_say(e, EBADMSG, "the groups of the cgroup hierarchy %s are not told right",
				 name_of(t));
	t->places = xcalloc(h->n_groups, sizeof(*t->places));
	for (size_t i = 0; i < h->n_groups; i++) {
		const Ferry__CgroupGroup *g = h->groups[i];
		struct cgroup_place *p = &t->places[i];

		p->group = g;
		p->path = xasprintf("%s%s", t->base[1] || !*g->path ? t->base : "", g->path);
		p->dir = xasprintf("%s%s", t->root, p->path[1] ? p->path : "");
		if (*g->path && !cgroup_path_ok(g->path))
			return error_say(e, EBADMSG, "the cgroup %s has a name that is not allowed", g->path);
	}
	return 0;
}

static int see_members(const Ferry__Cgroups *m, struct error *e)
{
	for (size_t i = 0; i < m->n_members; i++) {
		const Ferry__CgroupMember *x = m->members[i];

		if (x->n_groups != m->n_hierarchies)
			return error_say(e, EBADMSG, "the cgroups of pid %d are not told right", x->pid);
		for (size_t k = 0; k < x->n_groups; k++)
			if (x->groups[k] >= m->hierarchies[k]->n_groups)
				return error_say(e, EBADMSG, "pid %d is in a cgroup that is not told of",
						 x->pid);
	}
	return 0;
}

static int plan_make(struct cgroup_plan *p, const uint8_t *packed, size_t size, const char *roots,
		     struct error *e)
{
	plan_clear(p);
	p->record = ferry__cgroups__unpack(NULL, size, packed);
	if (!p->record)
		return error_say(e, EBADMSG, "the cgroups are not told right");
	p->trees = xcalloc(p->record->n_hierarchies + 1, sizeof(*p->trees));
	int r = see_members(p->record, e);

	for (size_t i = 0; i < p->record->n_hierarchies; i++)
		p->trees[i].hierarchy = p->record->hierarchies[i];
	for (size_t i = 0; i < p->record->n_hierarchies && r >= 0; i++)
		r = see_tree(&p->trees[i], p->record->hierarchies[i], roots, e);
	for (size_t i = 0; i < p->record->n_hierarchies && r >= 0; i++)
		for (size_t j = 0; j < p->trees[i].hierarchy->n_groups; j++)
			p->trees[i].places[j].made = cgroup_undo_has_made(p->undo, p->trees[i].places[j].dir);
	if (r < 0)
		plan_clear(p);
	return r;
}

int cgroup_plan_get(struct rebuild *r, struct cgroup_plan **ret, struct error *e)
{
	const ProtobufCMessage *m =
		r->options->cgroups == CGROUPS_IGNORE
			? NULL
			: snapshot_find(r->snapshot, FERRY__RECORD_TYPE__RECORD_CGROUPS, 0, 0);
	struct cgroup_plan *p = r->cgroups;
	int x = 0;

	*ret = NULL;
	if (!m)
		return 0;
	size_t size = protobuf_c_message_get_packed_size(m);
	cleanup_free uint8_t *packed = xmalloc(size + 1), *known = NULL;
	size_t n = p && p->record ? protobuf_c_message_get_packed_size(&p->record->base) : 0;

	protobuf_c_message_pack(m, packed);
	if (p && p->record && n == size) {
		known = xmalloc(n + 1);
		protobuf_c_message_pack(&p->record->base, known);
	}
	if (!p)
		p = r->cgroups = xcalloc(1, sizeof(*p));
	if (!known || memcmp(known, packed, size) != 0)
		x = plan_make(p, packed, size, r->options->cgroup_root, e);
	if (x >= 0)
		*ret = p;
	return x;
}

bool cgroup_sets(enum cgroup_mode mode, const struct cgroup_place *p)
{
	if (!p->path[1]) /* the machine's */
		return false;
	return mode == CGROUPS_PROPS || mode == CGROUPS_FULL || mode == CGROUPS_STRICT ||
	       (mode == CGROUPS_SOFT && p->made);
}

void cgroups_keep(struct rebuild *r)
{
	struct cgroup_plan *p = r->cgroups;

	if (p && p->undo)
		cgroup_undo_keep(p->undo);
}

void cgroups_rebuild_free(struct rebuild *r, bool started)
{
	struct cgroup_plan *p = r->cgroups;

	if (!p)
		return;
	cgroup_undo_free(p->undo, !started);
	plan_clear(p);
	free(p);
	r->cgroups = NULL;
}
