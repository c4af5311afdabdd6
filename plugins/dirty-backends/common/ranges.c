/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "pages.h"

int ranges_add(struct ranges *r, uint64_t start, uint64_t end, uint32_t flags)
{
	if (start >= end)
		return 0;
	/* Joined to the last one it would be lost: no answer, and so all is dirty, is better than that. */
	if (r->n && start < r->v[r->n - 1].start)
		return -ERANGE;
	if (r->n && r->v[r->n - 1].flags == flags && start <= r->v[r->n - 1].end) {
		if (end > r->v[r->n - 1].end)
			r->v[r->n - 1].end = end;
		return 0;
	}
	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap * 2 : 256;
		struct dirty_range *v = realloc(r->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		r->v = v;
		r->cap = cap;
	}
	r->v[r->n++] = (struct dirty_range){.start = start, .end = end, .flags = flags};
	return 0;
}

void ranges_free(struct ranges *r)
{
	free(r->v);
	*r = (struct ranges){0};
}

int ranges_merge(struct ranges *a, const struct ranges *b)
{
	struct ranges sum = {0};
	size_t i = 0, j = 0;

	if (!b->n)
		return 0;
	while (i < a->n || j < b->n) {
		int from_a = j == b->n || (i < a->n && a->v[i].start <= b->v[j].start);
		const struct dirty_range *r = from_a ? &a->v[i++] : &b->v[j++];

		if (ranges_add(&sum, r->start, r->end, r->flags) < 0) {
			ranges_free(&sum);
			return -ENOMEM;
		}
	}
	ranges_free(a);
	*a = sum;
	return 0;
}

int ranges_add_gaps(struct ranges *to, const struct ranges *r, uint64_t start, uint64_t end, uint32_t flags)
{
	struct ranges gaps = {0};
	int e = 0;

	for (size_t i = 0; i < r->n && e == 0; i++) {
		e = ranges_add(&gaps, start, r->v[i].start < end ? r->v[i].start : end, flags);
		if (r->v[i].end > start)
			start = r->v[i].end;
	}
	if (e == 0)
		e = ranges_add(&gaps, start, end, flags);
	if (e == 0)
		e = ranges_merge(to, &gaps);
	ranges_free(&gaps);
	return e;
}

int ranges_add_missing(struct ranges *to, const struct ranges *more)
{
	struct ranges extra = {0};
	size_t j = 0;
	int e = 0;

	for (size_t i = 0; i < more->n && e == 0; i++) {
		uint64_t at = more->v[i].start, end = more->v[i].end;

		while (j < to->n && to->v[j].end <= at)
			j++;
		for (size_t k = j; k < to->n && to->v[k].start < end && e == 0; k++) {
			e = ranges_add(&extra, at, to->v[k].start, more->v[i].flags);
			at = to->v[k].end > at ? to->v[k].end : at;
		}
		if (e == 0)
			e = ranges_add(&extra, at, end, more->v[i].flags);
	}
	if (e == 0)
		e = ranges_merge(to, &extra);
	ranges_free(&extra);
	return e;
}

int pages_answer(const struct ranges *written, const struct ranges *present, bool all, struct ranges *ret)
{
	size_t i = 0, j = 0;
	uint64_t at = 0;

	/* Walk over the borders of both: [at, next) has one answer. */
	while (i < written->n || j < present->n) {
		const struct dirty_range *w = i < written->n ? &written->v[i] : NULL;
		const struct dirty_range *p = j < present->n ? &present->v[j] : NULL;
		uint32_t flags =
			(w && w->start <= at ? w->flags : 0) | (p && p->start <= at ? DIRTY_PRESENT : 0);
		uint64_t next = UINT64_MAX;

		if (w)
			next = w->start <= at ? w->end : w->start;
		if (p && (p->start <= at ? p->end : p->start) < next)
			next = p->start <= at ? p->end : p->start;
		if ((flags & DIRTY_WRITTEN) || (all && flags))
			if (ranges_add(ret, at, next, flags) < 0)
				return -ENOMEM;
		at = next;
		if (w && w->end <= at)
			i++;
		if (p && p->end <= at)
			j++;
	}
	return 0;
}
