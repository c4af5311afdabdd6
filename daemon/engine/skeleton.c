/* SPDX-License-Identifier: Apache-2.0 */
/* Skeletons: their layouts and contents, and their ends. */
#include "engine/family.h"
#include "engine/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"

#define MADV_DONTNEED_LOCKED_ 24

static struct thread *leader(struct process *p)
{
	return p->threads[0];
}

int skeleton_run(struct process *p, struct error *e)
{
	struct skeleton *k = p->data;

	if (k->runner)
		return 0;
	return runner_start(&k->runner, k->region, &leader(p)->task, e);
}

int skeleton_stop(struct process *p, struct error *e)
{
	struct skeleton *k = p->data;
	struct runner *w = k->runner;

	k->runner = NULL;
	return w ? runner_stop(w, e) : 0;
}

void skeleton_data_free(struct process *p)
{
	struct skeleton *k = p->data;

	if (!k)
		return;
	if (k->region)
		region_free(k->region);
	if (k->mem_fd >= 0)
		close(k->mem_fd);
	if (k->mm)
		ferry__mm__free_unpacked(k->mm, NULL);
	page_set_deinit(&k->has);
	page_set_deinit(&k->drops);
	place_deinit(&k->place);
	free(k);
	p->data = NULL;
}

/* --- layout ---------------------------------------------------------------------------------------- */

int skeleton_batch(struct process *p, struct batch *b, struct error *e)
{
	struct skeleton *k = p->data;
	int r = skeleton_run(p, e);

	if (r >= 0)
		r = runner_run(k->runner, b, e);
	return r < 0 ? error_prefix(e, "pid %d", p->pid) : r;
}

struct layout_ctx {
	struct process *p;
	struct rebuild *rebuild;
};

static int layout_run(void *ctx, struct batch *b, struct error *e)
{
	struct process *p = ((struct layout_ctx *)ctx)->p;

	place_pause(&((struct skeleton *)p->data)->place);
	return skeleton_batch(p, b, e);
}

static int layout_object(void *ctx, uint64_t id)
{
	struct rebuild *r = ((struct layout_ctx *)ctx)->rebuild;

	return r->object_fd(r, id);
}

static int move_region(struct skeletons *s, struct process *p, struct error *e)
{
	struct skeleton *k = p->data;
	int r = skeleton_stop(p, e);

	for (size_t i = 0; i < p->n_threads; i++)
		p->threads[i]->task.syscall_insn = 0;
	if (r >= 0)
		r = region_remove(k->region, e);
	k->region = NULL;
	if (r >= 0)
		r = region_inject(&k->region, &leader(p)->task, s->region_addr, SKELETON_REGION_SIZE, e);
	for (size_t i = 0; r >= 0 && i < p->n_threads; i++)
		p->threads[i]->task.syscall_insn = region_syscall_insn(k->region);
	return r;
}

/* Of the pages it was given those are left that layout @mm has as the same memory. */
static void keep_common(struct skeleton *k, const Ferry__Mm *mm)
{
	struct page_set common = PAGE_SET_INIT, has = PAGE_SET_INIT;

	layout_common(k->mm, mm, false, &common);
	page_set_and(&k->has, &common, &has);
	page_set_deinit(&common);
	page_set_deinit(&k->has);
	k->has = has;
}

/* Pages that will come when it runs: a huge page would be there as a whole. */
static int make_huge(const struct skeletons *s, struct process *p, struct error *e)
{
	const struct skeleton *k = p->data;
	const Ferry__Left *left = (const Ferry__Left *)snapshot_find(
		s->rebuild->snapshot, FERRY__RECORD_TYPE__RECORD_LEFT, p->pid, 0);
	struct page_set not = PAGE_SET_INIT;

	for (size_t i = 0; left && i + 1 < left->n_ranges; i += 2)
		page_set_add(&not, left->ranges[i] & ~(HUGE_PAGE_BYTES - 1),
			     (left->ranges[i + 1] + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1));
	int r = place_huge(p, k->mm, &not, e);

	page_set_deinit(&not );
	return r;
}

static int sync_layout(struct skeletons *s, struct process *p, const Ferry__Mm *mm, struct error *e)
{
	struct skeleton *k = p->data;
	struct layout_ctx ctx = {p, s->rebuild};
	int r = 0;

	if (layout_overlaps(mm, region_addr(k->region), region_addr(k->region) + region_size(k->region))) {
		r = move_region(s, p, e);
		if (r < 0)
			return r;
	}
	struct layout_target t = {.run = layout_run,
				  .object_fd = layout_object,
				  .ctx = &ctx,
				  .pid = p->pid,
				  .region_start = region_addr(k->region),
				  .region_end = region_addr(k->region) + region_size(k->region)};

	if (k->mm && layout_is_other_program(k->mm, mm)) {
		ferry__mm__free_unpacked(k->mm, NULL);
		k->mm = NULL;
		page_set_clear(&k->has);
		page_set_clear(&k->drops);
		page_set_clear(&k->place.huge);
	}
	r = skeleton_flush_drops(p, e);
	if (r >= 0)
		r = layout_apply(&t, k->mm, mm, e);
	if (r < 0)
		return r;
	if (k->mm && k->has.n)
		keep_common(k, mm);
	size_t n = ferry__mm__get_packed_size(mm);
	cleanup_free uint8_t *buf = xmalloc(n);

	ferry__mm__pack(mm, buf);
	if (k->mm)
		ferry__mm__free_unpacked(k->mm, NULL);
	k->mm = ferry__mm__unpack(NULL, n, buf);
	return make_huge(s, p, e);
}

/* A gap that no layout of the tree uses, in a part of the address space that neither the kernel (top down
 * from the stack) nor programs (from below) usually reach. */
static int choose_region(struct skeletons *s, const Ferry__Tree *tree, struct error *e)
{
	for (uint64_t at = 0x200000000000ull; at < 0x500000000000ull; at += SKELETON_REGION_SIZE * 16ull) {
		bool free = true;

		for (size_t i = 0; i < tree->n_processes && free; i++) {
			const Ferry__Mm *mm = (const Ferry__Mm *)snapshot_find(s->rebuild->snapshot,
									       FERRY__RECORD_TYPE__RECORD_MM,
									       tree->processes[i]->pid, 0);

			free = !mm || !layout_overlaps(mm, at, at + SKELETON_REGION_SIZE);
		}
		if (free) {
			s->region_addr = at;
			return 0;
		}
	}
	return error_say(e, ENOMEM, "no free part of the address space for building the processes");
}

static int first_root(struct skeletons *s, const Ferry__Tree *tree, struct error *e)
{
	const Ferry__TreeProcess *tp = tree->processes[0];
	bool found = false;

	for (size_t i = 0; i < tree->n_processes; i++)
		found |= tree->processes[i]->pid == tp->sid;
	int r = family_make_root(s, tp, !found && !s->shell_job, e);

	if (r < 0)
		return r;
	struct process *root = s->tree->procs[0];

	r = family_new_data(root, tree->processes[0], e);
	if (r < 0)
		return r;
	struct skeleton *k = root->data;

	r = region_inject(&k->region, &leader(root)->task, s->region_addr, SKELETON_REGION_SIZE, e);
	if (r >= 0)
		leader(root)->task.syscall_insn = region_syscall_insn(k->region);
	return r < 0 ? r : cgroups_place(s->rebuild, root->pid, e);
}

static int sync_one(struct skeletons *s, struct process *p, const Ferry__TreeProcess *tp, struct error *e)
{
	const Ferry__Mm *mm = (const Ferry__Mm *)snapshot_find(s->rebuild->snapshot,
							       FERRY__RECORD_TYPE__RECORD_MM, tp->pid, 0);

	if (tp->state == FERRY__PROCESS_RUN_STATE__RUN_ZOMBIE)
		return 0;
	if (!mm)
		return error_say(e, EINVAL, "pid %d: the image has no memory layout of it", tp->pid);
	int r = family_sync_threads(p, tp, e);

	return r < 0 ? r : sync_layout(s, p, mm, e);
}

static const Ferry__Tree *tree_of(struct skeletons *s)
{
	return (const Ferry__Tree *)snapshot_find(s->rebuild->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0,
						  0);
}

int skeletons_sync(struct skeletons *s, struct error *e)
{
	const Ferry__Tree *tree = tree_of(s);
	int r = 0;

	if (!tree || !tree->n_processes)
		return error_say(e, EINVAL, "the image has no process tree");
	r = skeletons_end_taking(s, e);
	if (r < 0)
		return r;
	family_drop_stale(s, tree);
	r = choose_region(s, tree, e);
	if (r >= 0 && s->tree->n == 0)
		r = first_root(s, tree, e);
	for (size_t i = 0; i < tree->n_processes && r >= 0; i++) {
		struct process *p = tree_find(s->tree, tree->processes[i]->pid);

		if (p)
			r = sync_one(s, p, tree->processes[i], e);
	}
	return r;
}

static int make_until(struct skeletons *s, pid_t pid, pid_t holder, struct error *e)
{
	const Ferry__Tree *tree = tree_of(s);
	int r = 0;

	for (size_t i = 0; i < tree->n_processes && r >= 0; i++) {
		const Ferry__TreeProcess *tp = tree->processes[i];

		if (tree_find(s->tree, tp->pid))
			continue;
		r = family_make(s, tree, tp, tp->pid == pid ? holder : 0, e);
		if (r >= 0)
			r = cgroups_place(s->rebuild, tp->pid, e);
		if (r >= 0)
			r = sync_one(s, tree_find(s->tree, tp->pid), tp, e);
		if (tp->pid == pid)
			break;
	}
	return r;
}

int skeletons_make(struct skeletons *s, pid_t pid, struct error *e)
{
	int r = skeletons_end_taking(s, e);

	if (r >= 0)
		r = make_until(s, pid, 0, e);
	return r < 0 || pid ? r : family_settle(s, tree_of(s), e);
}

/* --- inheritance ----------------------------------------------------------------------------------- */

static int make_heir(struct skeletons *s, pid_t pid, pid_t from, struct error *e)
{
	if (tree_find(s->tree, pid))
		return error_say(e, EINVAL, "pid %d is there already: it cannot inherit memory from %d", pid,
				 from);
	int r = make_until(s, pid, from, e);
	struct process *p = tree_find(s->tree, pid), *holder = tree_find(s->tree, from);

	if (r < 0)
		return r;
	struct skeleton *k = p ? p->data : NULL, *h = holder ? holder->data : NULL;

	if (!k || !h || !k->mm || !h->mm)
		return error_say(e, EINVAL, "pid %d cannot inherit memory from %d", pid, from);
	layout_common(h->mm, k->mm, true, &s->heritable);
	s->heir = p;
	s->holder = from;
	return 0;
}

int skeletons_take(struct skeletons *s, const struct page_run *run, struct error *e)
{
	struct page_set outside = PAGE_SET_INIT;
	struct page_range range = {run->addr, run->addr + run->length};
	const struct page_set wanted = {&range, 1, 1};
	int r = 0;

	if (!s->heir || s->heir->pid != (pid_t)run->id || s->holder != (pid_t)run->from) {
		r = skeletons_end_taking(s, e);
		if (r >= 0)
			r = make_heir(s, run->id, run->from, e);
		if (r < 0)
			return r;
	}
	page_set_minus(&wanted, &s->heritable, &outside);
	if (outside.n)
		r = error_say(e, EINVAL, "pid %d: memory at 0x%llx is not the same as in %d", s->heir->pid,
			      (unsigned long long)outside.r[0].start, s->holder);
	page_set_deinit(&outside);
	page_set_add(&s->taken, run->addr, run->addr + run->length);
	return r;
}

int skeletons_end_taking(struct skeletons *s, struct error *e)
{
	struct process *p = s->heir;
	struct page_set rest = PAGE_SET_INIT, has = PAGE_SET_INIT;

	if (!p)
		return 0;
	struct skeleton *k = p->data;

	page_set_minus(&k->has, &s->taken, &rest);
	page_set_and(&k->has, &s->taken, &has);
	page_set_deinit(&k->has);
	k->has = has;
	page_set_merge(&k->drops, &rest);
	page_set_deinit(&rest);
	page_set_deinit(&s->taken);
	page_set_deinit(&s->heritable);
	s->heir = NULL;
	if (!k->drops.n)
		return 0;
	int r = skeleton_flush_drops(p, e);

	/* Huge pages of its own, where its holder's were. */
	return r < 0 ? r : make_huge(s, p, e);
}

/* --- contents -------------------------------------------------------------------------------------- */

int skeleton_flush_drops(struct process *p, struct error *e)
{
	struct skeleton *k = p->data;
	size_t i = 0;

	while (i < k->drops.n) {
		struct batch b = BATCH_INIT;

		for (; i < k->drops.n && b.n < 4096; i++) {
			unsigned c = batch_call(&b, "drop pages", SYS_madvise, ARG(k->drops.r[i].start),
						ARG(k->drops.r[i].end - k->drops.r[i].start),
						ARG(MADV_DONTNEED_LOCKED_));

			batch_accept_errno(&b, c, ENOMEM); /* part of it is not mapped any more: as good */
		}
		int r = skeleton_batch(p, &b, e);

		batch_deinit(&b);
		if (r < 0)
			return r;
	}
	for (size_t j = 0; j < k->drops.n; j++)
		place_dropped(&k->place, k->drops.r[j].start, k->drops.r[j].end);
	page_set_clear(&k->drops);
	return 0;
}

/* First VMA that ends behind @addr. */
static size_t vma_at(const Ferry__Mm *mm, uint64_t addr)
{
	size_t lo = 0, hi = mm->n_vmas;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (mm->vmas[mid]->end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static int write_piece(struct process *p, const Ferry__Vma *v, uint64_t addr, const void *data, size_t n,
		       struct error *e)
{
	struct skeleton *k = p->data;
	int r = 0;

	if (k->drops.n && page_set_overlaps(&k->drops, addr, addr + n))
		r = skeleton_flush_drops(p, e);
	return r < 0 ? r : place_write(p, v, addr, data, n, e);
}

/* Nothing there: given back at the next chance. Zeros in a huge page stay in it. */
static int clear_piece(struct process *p, const Ferry__Vma *v, uint64_t addr, uint64_t n, bool zeros,
		       struct error *e)
{
	static const char zero[64 << 10];
	struct skeleton *k = p->data;
	int r = 0;

	if (!zeros || !place_keeps_zeros(&k->place, addr, addr + n)) {
		page_set_add(&k->drops, addr, addr + n);
		return 0;
	}
	for (uint64_t at = 0; at < n && r >= 0; at += sizeof(zero))
		r = write_piece(p, v, addr + at, zero, MIN(n - at, (uint64_t)sizeof(zero)), e);
	return r;
}

/* Only what the layout has as private memory is taken: an image on disk carries the pages of earlier rounds
 * too, and some of those were unmapped since. */
int skeleton_write(struct process *p, const struct page_run *run, const void *data, struct error *e)
{
	struct skeleton *k = p->data;
	uint64_t addr = run->addr, end = run->addr + run->length;
	int r = 0;

	if (!k->mm) /* ended since: it is going to be a zombie */
		return 0;
	for (size_t i = vma_at(k->mm, addr); i < k->mm->n_vmas && k->mm->vmas[i]->start < end && r >= 0;
	     i++) {
		const Ferry__Vma *v = k->mm->vmas[i];
		uint64_t from = MAX(addr, v->start), to = MIN(end, v->end);

		if (v->shared || layout_is_special(v))
			continue;
		if (data)
			r = write_piece(p, v, from, (const char *)data + (from - addr), to - from, e);
		else
			r = clear_piece(p, v, from, to - from, run->flags & PAGE_RUN_ZERO, e);
		if (data)
			page_set_add(&k->has, from, to);
		else
			page_set_remove_range(&k->has, from, to);
	}
	return r < 0 || k->drops.n < 65536 ? r : skeleton_flush_drops(p, e);
}

/* --- ends ------------------------------------------------------------------------------------------ */

static int name_zombie(struct process *p, const char *comm, struct error *e)
{
	struct batch b = BATCH_INIT;

	batch_call(&b, "name", SYS_prctl, ARG(PR_SET_NAME), ARG_STR(&b, comm));
	int r = skeleton_batch(p, &b, e);

	batch_deinit(&b);
	return r;
}

static int make_zombie(struct process *p, const Ferry__TreeProcess *tp, struct error *e)
{
	struct task *t = &leader(p)->task;
	int status = tp->exit_status;
	struct error gone = ERROR_INIT;
	int64_t result;
	int wstatus;
	int r = name_zombie(p, tp->comm, e);

	if (r >= 0)
		r = skeleton_stop(p, e);

	if (r < 0)
		return r;
	if (WIFSIGNALED(status)) {
		/* Default action, nothing blocked: the signal ends it when it runs again. */
		task_set_mask(t, 0, &gone);
		kill(p->pid, WTERMSIG(status));
		if (WTERMSIG(status) != SIGKILL) {
			task_cont(t, &gone);
			for (int i = 0; i < 1000; i++) {
				pid_t w = waitpid(p->pid, &wstatus, __WALL);

				if (w != p->pid || WIFEXITED(wstatus) || WIFSIGNALED(wstatus))
					break;
				ptrace(PTRACE_CONT, p->pid, 0, wstatus >> 16 ? 0 : WSTOPSIG(wstatus));
			}
		} else {
			waitpid(p->pid, &wstatus, __WALL);
		}
	} else {
		task_syscall(t, SYS_exit_group, (uint64_t[6]){WEXITSTATUS(status)}, &result, NULL, NULL,
			     &gone);
	}
	t->state = TASK_GONE;
	p->state = PROCESS_ZOMBIE;
	p->exit_status = status;
	skeleton_data_free(p);
	return 0;
}

int skeletons_make_zombies(struct skeletons *s, const Ferry__Tree *tree, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < tree->n_processes && r >= 0; i++) {
		const Ferry__TreeProcess *tp = tree->processes[i];

		if (tp->state == FERRY__PROCESS_RUN_STATE__RUN_ZOMBIE)
			r = make_zombie(tree_find(s->tree, tp->pid), tp, e);
	}
	return r;
}

void skeletons_kill(struct skeletons *s)
{
	int status;

	for (size_t i = 0; i < s->tree->n; i++)
		kill(s->tree->procs[i]->pid, SIGKILL);
	for (size_t i = s->tree->n; i-- > 0;) {
		struct process *p = s->tree->procs[i];

		for (size_t j = p->n_threads; j-- > 0;)
			waitpid(p->threads[j]->task.tid, &status, __WALL);
		if (!p->parent)
			waitpid(p->pid, &status, __WALL); /* as its parent, too */
		skeleton_data_free(p);
	}
}
