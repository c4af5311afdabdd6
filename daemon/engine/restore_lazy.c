/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore from an image with pages missing: docs/post-copy.md, "As separate verbs".  The same pages stay
 * behind as in a migration; of an image that is whole they are simply not read, of one whose pages are with
 * the stopped original it says itself which they are.
 */
#include <errno.h>
#include <string.h>

#include "arch/arch.h"
#include "base/util.h"
#include "engine/pager.h"
#include "engine/rebuild.h"
#include "proto/files.pb-c.h"
#include "proto/task.pb-c.h"

static void keep_of_thread(struct restore *r, pid_t pid, pid_t tid, struct page_set *keep)
{
	const Ferry__Regs *regs =
		(const Ferry__Regs *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_REGS, pid, tid);
	const Ferry__ThreadState *t = (const Ferry__ThreadState *)snapshot_find(
		&r->snapshot, FERRY__RECORD_TYPE__RECORD_THREAD, pid, tid);
	struct arch_regs general = {0};

	if (regs && regs->general.len == sizeof(general)) {
		memcpy(&general, regs->general.data, sizeof(general));
		memory_keep_of_thread(keep, arch_regs_sp(&general), arch_regs_tp(&general));
	}
	if (t) {
		memory_keep_page(keep, t->rseq_addr);
		memory_keep_page(keep, t->robust_list);
	}
}

static int leave_of(struct restore *r, const Ferry__TreeProcess *p, struct stream_in *in, struct error *e)
{
	const Ferry__Mm *mm =
		(const Ferry__Mm *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_MM, p->pid, 0);
	struct page_set keep = PAGE_SET_INIT, may = PAGE_SET_INIT, left = PAGE_SET_INIT;
	int x = 0;

	/* What handles its faults finds the memory under its number. */
	if (p->leader_ended)
		return 0;
	for (size_t i = 0; mm && i < mm->n_vmas; i++)
		if (memory_may_stay(mm->vmas[i]))
			page_set_add(&may, mm->vmas[i]->start, mm->vmas[i]->end);
	for (size_t i = 0; i < p->n_tids; i++)
		keep_of_thread(r, p->pid, p->tids[i], &keep);
	page_set_remove(&may, &keep);
	if (may.n)
		x = stream_in_leave(in, (uint64_t)p->pid, &may, &left, e);
	if (x >= 0 && left.n)
		x = restore_expect_missing(r, p->pid, (const uint64_t *)left.r, 2 * left.n, e);
	page_set_deinit(&keep);
	page_set_deinit(&may);
	page_set_deinit(&left);
	return x;
}

/* Of the program's own: flags of mappings are no proof, what is tracked can show one, too. And pages that are
 * registered with an io_uring must be there when they are. */
static bool needs_all(const struct restore *r)
{
	const Ferry__Files *f =
		(const Ferry__Files *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0);

	for (size_t i = 0; f && i < f->n_files; i++)
		if (f->files[i]->kind == FERRY__FILE_KIND__FILE_USERFAULTFD ||
		    (f->files[i]->io_uring && f->files[i]->io_uring->n_buffers))
			return true;
	return false;
}

int lazy_choose(struct restore *r, struct stream_in *in, struct error *e)
{
	const Ferry__Tree *tree =
		(const Ferry__Tree *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);
	int x = 0;

	/* Its pages are elsewhere: the image says which. */
	if (!tree || r->n_lazy || needs_all(r))
		return 0;
	for (size_t i = 0; i < tree->n_processes && x >= 0; i++)
		if (tree->processes[i]->state != FERRY__PROCESS_RUN_STATE__RUN_ZOMBIE)
			x = leave_of(r, tree->processes[i], in, e);
	return x;
}

int lazy_hand_over(struct restore *r, struct error *e)
{
	const struct restore_lazy *l = r->opt.lazy;
	struct pager *p = NULL;
	int x = restore_take_pager(r, &p, e);

	if (x < 0)
		return x;
	x = pager_write(p, l->state_path, e);
	bool written = x >= 0;

	if (x >= 0)
		x = l->hand_over(l->ctx, e);
	if (x < 0 && written)
		pager_discard(l->state_path);
	/* The other one has descriptors of its own, and a holder: ours would keep memory registered for ever.
	 */
	if (written)
		pager_end_holder(p);
	pager_free(p);
	return x;
}
