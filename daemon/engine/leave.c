/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy at the source: pages of the last round that stay with the frozen original (docs/post-copy.md).
 * What every thread touches at once, and the kernel with it, goes along: its stack, its thread pointer with
 * all that C libraries keep there, its restartable sequence.
 */
#include <errno.h>
#include <sys/syscall.h>

#include "arch/arch.h"
#include "base/util.h"
#include "engine/source.h"

static int keep_of_thread(struct task *t, struct page_set *s, struct error *e)
{
	uint64_t robust = 0;
	size_t size = 0;
	int r = t->state == TASK_GONE ? -ESRCH : task_save(t, e);

	if (r == -ESRCH)
		return 0;
	if (r < 0)
		return r;
	memory_keep_of_thread(s, arch_regs_sp(&t->saved_regs), arch_regs_tp(&t->saved_regs));
	memory_keep_page(s, t->rseq_addr);
	if (syscall(SYS_get_robust_list, t->tid, &robust, &size) == 0)
		memory_keep_page(s, robust);
	return 0;
}

int session_leave_of(struct session *s, struct process *p, struct error *e)
{
	struct memory_process *mp = p->data;
	struct page_set keep = PAGE_SET_INIT;
	int r = 0;

	/* What serves the pages, and what handles their faults, finds the memory under the process's number.
	 */
	if (!mp || !mp->mm || !mp->plan || s->memory->userfaults || s->memory->pinned || p->living)
		return 0;
	for (size_t i = 0; i < p->n_threads && r >= 0; i++)
		r = keep_of_thread(&p->threads[i]->task, &keep, e);
	if (r >= 0)
		memory_leave(s->memory, p, &keep, &mp->left);
	page_set_deinit(&keep);
	return r;
}

int session_leave(struct session *s, struct error *e)
{
	int r = 0;

	s->memory->leaves = !s->memory->userfaults && !s->memory->pinned;
	s->memory->may_leave = s->opt.leave_shared;
	for (size_t i = 0; i < s->tree->n; i++)
		s->memory->may_leave &= !s->tree->procs[i]->living;
	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		const struct memory_process *mp = s->tree->procs[i]->data;

		/* One that is new to the other side is made as a clone of another first, with what it shares:
		 * its turn comes when that has been sent (inherit.c). */
		if (mp && !mp->fresh)
			r = session_leave_of(s, s->tree->procs[i], e);
	}
	return r;
}

/* Some had to go all the same, as versions of them were lent to a child that is made as a clone. */
void session_leave_end(struct session *s)
{
	for (size_t i = 0; i < s->tree->n; i++) {
		struct memory_process *mp = s->tree->procs[i]->data;

		if (!mp)
			continue;
		page_set_remove(&mp->left, &mp->sent);
		page_set_merge(&mp->left, &mp->left_shared);
		page_set_clear(&mp->left_shared);
	}
}

uint64_t session_left_pages(const struct session *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s->tree->n; i++) {
		const struct memory_process *mp = s->tree->procs[i]->data;

		n += mp ? page_set_bytes(&mp->left) / PAGE_SIZE_BYTES : 0;
	}
	return n;
}
