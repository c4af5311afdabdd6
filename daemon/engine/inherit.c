/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order in which pages of a round go, when some of the processes are new to the other side: the order of
 * their making there (docs/cow-sharing.md).  Each heir's turn gives it what it shares; a process' own pages
 * go when all its heirs have been made.
 */
#include "engine/source.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "state/memory/sharing.h"

#define NOBODY SIZE_MAX

struct entry {
	struct process *p; /* NULL: gone, or without memory */
	struct memory_process *mp;
	size_t holder;          /* NOBODY: inherits nothing */
	struct share_holder as; /* its part for its own heirs */
	struct heir heir;
	size_t first_done, next_done; /* whose last heir this one is */
};

struct passing {
	struct session *s;
	struct stream_out *out;
	bool layout, final;
	struct round_stats *st;
	struct entry *v;
	size_t n;
};

/* Has pages in this round? */
static bool takes_part(const struct process *p)
{
	const struct memory_process *mp = p ? p->data : NULL;

	return mp && mp->mm && mp->plan && !mp->stale;
}

static size_t find(const struct passing *w, size_t before, pid_t pid)
{
	for (size_t i = 0; pid && i < before; i++)
		if (w->v[i].p && w->v[i].p->pid == pid)
			return i;
	return NOBODY;
}

static void cast(struct passing *w)
{
	for (size_t i = 0; i < w->n; i++) {
		const struct stream_kin *k = &w->s->kin[i];
		struct entry *x = &w->v[i];

		x->p = tree_find(w->s->tree, (pid_t)k->pid);
		if (!takes_part(x->p))
			x->p = NULL;
		x->mp = x->p ? x->p->data : NULL;
		x->holder = x->mp && x->mp->fresh ? find(w, i, (pid_t)k->from) : NOBODY;
		x->as.mp = x->mp;
		if (x->holder != NOBODY)
			x->heir = (struct heir){
				.mp = x->mp, .holder = &w->v[x->holder].as, .common = &k->common};
	}
	cleanup_free size_t *last = xcalloc(w->n, sizeof(*last));

	for (size_t i = 0; i < w->n; i++) {
		last[i] = i;
		w->v[i].first_done = NOBODY;
		if (w->v[i].holder != NOBODY)
			last[w->v[i].holder] = i;
	}
	for (size_t i = 0; i < w->n; i++) {
		w->v[i].next_done = w->v[last[i]].first_done;
		w->v[last[i]].first_done = i;
	}
}

/* All heirs of one holder together. */
static int look(struct passing *w, struct error *e)
{
	cleanup_free struct heir **heirs = xcalloc(w->n, sizeof(struct heir *));
	int r = 0;

	for (size_t i = 0; i < w->n && r >= 0; i++) {
		size_t n = 0;

		for (size_t j = i + 1; j < w->n; j++)
			if (w->v[j].holder == i)
				heirs[n++] = &w->v[j].heir;
		if (n)
			r = share_look(&w->v[i].as, heirs, n, e);
	}
	return r;
}

/* Its heirs are made: the rest of its pages. */
static int finish(struct passing *w, struct entry *x, struct error *e)
{
	int r = x->p ? share_put_back(&x->as, e) : 0;

	if (r == -ESRCH && !w->final) {
		/* Ended, or has exec'ed: nothing of this memory is wanted any more. */
		error_clear(e);
		memory_plan_clear(x->mp);
		x->mp->stale = true;
		return 0;
	}
	/* Nobody inherits from it any more, and what it inherits itself is there: the rest may stay. */
	if (r >= 0 && x->p && x->mp->fresh && w->final && w->s->post_copy)
		r = session_leave_of(w->s, x->p, e);
	if (r >= 0 && x->p)
		r = session_send_one(w->s, x->p, w->out, w->layout, w->final, w->st, e);
	return w->final || !x->p ? r : session_forgive(w->s, x->p, r, e);
}

static int pass(struct passing *w, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < w->n && r >= 0; i++) {
		struct entry *x = &w->v[i];

		if (x->holder != NOBODY)
			r = share_send(w->s->memory, &x->heir, w->out, w->final, w->st, e);
		for (size_t j = x->first_done; j != NOBODY && r >= 0; j = w->v[j].next_done)
			r = finish(w, &w->v[j], e);
	}
	return r;
}

static bool any_fresh(const struct session *s)
{
	for (size_t i = 0; i < s->tree->n; i++) {
		const struct memory_process *mp = s->tree->procs[i]->data;

		if (mp && mp->fresh)
			return true;
	}
	return false;
}

int session_pass_on(struct session *s, struct stream_out *out, bool layout, bool final,
		    struct round_stats *st, struct error *e)
{
	struct passing w = {.s = s, .out = out, .layout = layout, .final = final, .st = st};
	int r;

	if (!any_fresh(s))
		return 0;
	/* Where skeletons follow, they do so by the Tree that was sent. */
	if (!layout)
		ferry__tree__free_unpacked(session_tree_message(s), NULL);
	w.n = s->n_kin;
	w.v = xcalloc(w.n, sizeof(*w.v));
	cast(&w);
	r = look(&w, e);
	if (r >= 0)
		r = pass(&w, e);
	for (size_t i = 0; i < w.n; i++) {
		share_holder_deinit(&w.v[i].as);
		heir_deinit(&w.v[i].heir);
	}
	free(w.v);
	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct memory_process *mp = s->tree->procs[i]->data;

		if (mp && !mp->stale)
			mp->fresh = false;
	}
	return r;
}

/* --- skeletons that are made anew ------------------------------------------------------------------ */

/* A skeleton cannot get another parent: it is made anew, and its children with it. */
static bool is_remade(const struct process *p)
{
	const struct memory_process *mp = p->data, *parent = p->parent ? p->parent->data : NULL;

	return mp && mp->placed_under && p->parent &&
	       (mp->placed_under != p->ppid || (parent && parent->fresh && parent->placed_under));
}

void session_place_tree(struct session *s)
{
	for (size_t i = 0; i < s->tree->n; i++) {
		struct process *p = s->tree->procs[i];
		struct memory_process *mp = p->data;

		if (!mp)
			continue;
		if (is_remade(p)) {
			mp->fresh = true;
			page_set_clear(&mp->sent);
			page_hashes_free(mp->hashes);
			mp->hashes = NULL;
			for (size_t j = 0; j < mp->n_plan; j++)
				page_set_add(&mp->plan[j].written, mp->plan[j].start, mp->plan[j].end);
		}
		mp->placed_under = p->ppid;
	}
}
