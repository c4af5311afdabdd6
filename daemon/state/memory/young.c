/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Young pages: read too soon after they were protected.
 *
 * A call of another process (process_vm_writev(2), ptrace(2), a write to /proc/PID/mem) looks its page up
 * first and writes later; if the page is protected and read in between, that write is seen by nobody.  So
 * what is read before all calls that were in progress at its protection have ended (callers.c) is looked at
 * once more after that, or when the target is frozen.  Rounds can be much shorter: pages are kept by the
 * round they were protected in.
 */
#include <string.h>

#include "base/util.h"
#include "state/memory/memory.h"

struct young_pages {
	uint64_t since; /* ns: when they were protected */
	struct page_set set;
};

static void drop_empty(struct memory_process *mp)
{
	size_t n = 0;

	for (size_t i = 0; i < mp->n_young; i++)
		if (mp->young[i].set.n)
			mp->young[n++] = mp->young[i];
		else
			page_set_deinit(&mp->young[i].set);
	mp->n_young = n;
}

bool young_is(const struct memory_process *mp, uint64_t gone)
{
	return mp->collected > gone;
}

void young_add(struct memory_process *mp, uint64_t start, uint64_t end)
{
	struct young_pages *last = mp->n_young ? &mp->young[mp->n_young - 1] : NULL;

	if (!last || last->since != mp->collected) {
		drop_empty(mp);
		mp->young = xrealloc(mp->young, (mp->n_young + 1) * sizeof(*mp->young));
		last = &mp->young[mp->n_young++];
		*last = (struct young_pages){.since = mp->collected};
	}
	page_set_add(&last->set, start, end);
}

void young_take(struct memory_process *mp, uint64_t gone, uint64_t start, uint64_t end, bool all,
		struct page_set *ret)
{
	struct page_set range = PAGE_SET_INIT;

	page_set_add(&range, start, end);
	for (size_t i = 0; i < mp->n_young; i++) {
		struct young_pages *y = &mp->young[i];
		struct page_set ripe = PAGE_SET_INIT;

		if ((!all && y->since > gone) || !page_set_overlaps(&y->set, start, end))
			continue;
		page_set_and(&y->set, &range, &ripe);
		page_set_merge(ret, &ripe);
		page_set_remove(&y->set, &ripe);
		page_set_deinit(&ripe);
	}
	page_set_deinit(&range);
}

void young_forget(struct memory_process *mp, const struct page_set *set)
{
	for (size_t i = 0; i < mp->n_young; i++)
		page_set_remove(&mp->young[i].set, set);
}

void young_free(struct memory_process *mp)
{
	for (size_t i = 0; i < mp->n_young; i++)
		page_set_deinit(&mp->young[i].set);
	free(mp->young);
}
