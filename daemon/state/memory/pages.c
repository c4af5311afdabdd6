/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages in rounds: what has to go. (send.c carries it out.)
 *
 * For every process the set `sent` says which pages the other side has.  A round has three phases, each over
 * all processes before the next begins:
 *
 *	collect   the backend tells which pages were written, and arms them again.  With a backend that cannot
 *	          do that atomically the target is stopped meanwhile, and only then
 *	resolve   which of those are populated now: written and populated is to be read and sent; written and
 *not populated was dropped, and if it was sent the other side is told (DROP) send      read and send
 *
 * A page that changes after it was armed is written again and goes with the next round.  What is not tracked,
 * and every new piece of a VMA, counts as written.  Arming comes before reading, always.
 *
 * At the last, frozen round two things more: untracked VMAs go whole, and in private file mappings the
 * complete populated set is compared with `sent`, since drops there are never reported as writes.  A page
 *that reading failed for (its VMA was being unmapped) is kept in `unread` and counts as written the next
 *time.
 */
#include "state/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "procfs/pagemap.h"
#include "state/memory/huge.h"
#include "track/calls.h"

#define SCAN_GAP (32 * PAGE_SIZE_BYTES)

static uint64_t read_max_map_count(void)
{
	cleanup_free char *text = NULL;
	unsigned long n = 0;

	if (read_file("/proc/sys/vm/max_map_count", &text) > 0)
		n = strtoul(text, NULL, 10);
	return n ? n : 65530;
}

struct memory *memory_new(void)
{
	struct memory *m = xcalloc(1, sizeof(*m));

	m->buffer = xmalloc(STREAM_MAX_RUN);
	m->next_id = 1;
	m->inotify = -1;
	m->max_map_count = read_max_map_count();
	return m;
}

static void object_free(struct memory_object *o)
{
	close(o->fd);
	free(o->name);
	if (o->sysv)
		ferry__sysv_segment__free_unpacked(o->sysv, NULL);
	if (o->file)
		ferry__file_identity__free_unpacked(o->file, NULL);
	page_set_deinit(&o->dirty);
	page_set_deinit(&o->unsure);
	page_set_deinit(&o->young);
	page_set_deinit(&o->sent);
	page_set_deinit(&o->keep);
	page_set_deinit(&o->left);
	page_hashes_free(o->hashes);
	page_use_deinit(&o->use);
	free(o);
}

void memory_free(struct memory *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_objects; i++)
		object_free(m->objects[i]);
	free(m->objects);
	if (m->inotify >= 0)
		close(m->inotify);
	free(m->buffer);
	callers_free(m->callers);
	if (m->backend.ops)
		backend_close(&m->backend);
	free(m);
}

static size_t read_auxv(pid_t pid, char **ret)
{
	cleanup_free char *path = xasprintf("/proc/%d/auxv", pid);
	ssize_t n = read_file(path, ret);

	return n > 0 ? (size_t)n : 0;
}

/* The auxiliary vector belongs to the memory of one program: its addresses are random. */
bool memory_same_program(const struct memory_process *mp)
{
	cleanup_free char *now = NULL;
	size_t n = read_auxv(mp->living, &now);

	return n == mp->auxv_length && (!n || memcmp(now, mp->auxv, n) == 0);
}

int memory_attach(struct memory *m, struct process *p, struct error *e)
{
	(void)m;
	struct memory_process *mp = xcalloc(1, sizeof(*mp));
	cleanup_free char *mem = xasprintf("/proc/%d/mem", process_living(p));

	mp->pid = p->pid;
	mp->living = process_living(p);
	mp->auxv_length = read_auxv(mp->living, &mp->auxv);
	mp->pagemap_fd = -1;
	mp->mem_fd = open(mem, O_RDONLY | O_CLOEXEC);
	if (mp->mem_fd < 0) {
		int r = error_set(e, errno, "open %s", mem);

		free(mp->auxv);
		free(mp);
		return r;
	}
	mp->pagemap_fd = pagemap_open(mp->living);
	if (mp->pagemap_fd < 0) {
		int r = error_set(e, -mp->pagemap_fd, "open /proc/%d/pagemap", mp->living);

		close(mp->mem_fd);
		free(mp->auxv);
		free(mp);
		return r;
	}
	p->data = mp;
	return 0;
}

bool memory_keeps_hashes(const struct memory *m)
{
	return m->backend.ops && (m->backend.ops->caps & DIRTY_CAP_UNSURE);
}

bool memory_stops_target(const struct memory *m)
{
	return m->backend.ops && !(m->backend.ops->caps & DIRTY_CAP_RUNNING);
}

struct inject {
	struct task *t;
	struct error *e;
};

static int64_t inject_syscall(void *ctx, long nr, const uint64_t args[6])
{
	struct inject *i = ctx;
	int64_t result;
	int r = task_syscall(i->t, nr, args, &result, NULL, NULL, i->e);

	return r < 0 ? r : result;
}

int memory_track(struct memory *m, struct process *p, struct task *t, struct error *e)
{
	struct memory_process *mp = p->data;
	struct inject i = {t, e};
	struct dirty_target target = {.pid = process_living(p),
				      .pidfd = process_living_fd(p),
				      .ctx = &i,
				      .syscall = inject_syscall};
	char why[256] = "";

	if (!m->backend.ops)
		return 0;
	/* A backend may make a userfaultfd in there: gone with us if we die before it is closed again. */
	rescue_note_fd(p->pid, RESCUE_UFFD);
	int r = backend_attach(&m->backend, &target, &mp->session, why, sizeof(why));

	rescue_clear_fd(p->pid);
	mp->shows_uw = m->backend.ops->caps & DIRTY_CAP_SHOWS_UW;

	if (r < 0)
		return error_is(e) ? -e->code
				   : error_set(e, -r, "pid %d: start tracking with %s (%s)", p->pid,
					       m->backend.ops->name, why);
	return 0;
}

void memory_detach(struct memory *m, struct process *p)
{
	struct memory_process *mp = p->data;

	if (!mp)
		return;
	if (mp->session) {
		backend_detach(&m->backend, mp->session);
		if (!(m->backend.ops->caps & DIRTY_CAP_KEEPS_THP))
			huge_repair(mp, process_living_fd(p));
	}
	close(mp->mem_fd);
	close(mp->pagemap_fd);
	if (mp->mm)
		ferry__mm__free_unpacked(mp->mm, NULL);
	mm_seen_free(mp->seen);
	free(mp->auxv);
	memory_plan_clear(mp);
	page_hashes_free(mp->hashes);
	page_set_deinit(&mp->armed);
	page_set_deinit(&mp->sent);
	page_set_deinit(&mp->unread);
	young_free(mp);
	page_set_deinit(&mp->unmapped);
	page_set_deinit(&mp->left);
	page_set_deinit(&mp->left_shared);
	page_use_deinit(&mp->use);
	page_set_deinit(&mp->huge);
	free(mp);
	p->data = NULL;
}

void memory_plan_clear(struct memory_process *mp)
{
	for (size_t i = 0; i < mp->n_plan; i++) {
		page_set_deinit(&mp->plan[i].written);
		page_set_deinit(&mp->plan[i].unsure);
		page_set_deinit(&mp->plan[i].present);
		page_set_deinit(&mp->plan[i].absent);
		page_set_deinit(&mp->plan[i].again);
		page_set_deinit(&mp->plan[i].go);
		page_set_deinit(&mp->plan[i].drop);
	}
	free(mp->plan);
	mp->plan = NULL;
	mp->n_plan = 0;
	page_set_clear(&mp->unmapped);
}

/* --- resolve --------------------------------------------------------------------------------------- */

/* What of @set is populated, a little around it too: a call costs as much as looking at some dozens of pages.
 */
static int find_populated(const struct memory_process *mp, const struct page_set *set, bool private_file,
			  struct page_set *ret, struct page_set *huge)
{
	int r = 0;

	for (size_t i = 0; i < set->n && r >= 0;) {
		uint64_t start = set->r[i].start, end = set->r[i].end;

		for (i++; i < set->n && set->r[i].start - end <= SCAN_GAP; i++)
			end = set->r[i].end;
		r = pagemap_populated_huge(mp->pagemap_fd, start, end, private_file, ret, huge);
	}
	return r;
}

static int resolve_vma(struct memory_process *mp, struct page_plan *plan, bool final, struct error *e)
{
	struct page_set populated = PAGE_SET_INIT, all = PAGE_SET_INIT, gone = PAGE_SET_INIT,
			ask = PAGE_SET_INIT;
	const struct page_set *w = &plan->written;
	/* In private file mappings drops are not reported: at the end look at everything. */
	bool whole = plan->private_file && final;
	struct page_set *huge = plan->private_file ? NULL : &mp->huge;
	int r = 0;

	if (whole) {
		r = pagemap_populated(mp->pagemap_fd, plan->start, plan->end, 1, &populated);
	} else {
		/* A final answer says what is there. What is only looked at again was there, and a drop would
		 * have counted as written. */
		page_set_minus(w, &plan->absent, &all);
		page_set_minus(&all, &plan->present, &ask);
		page_set_remove(&ask, &plan->again);
		r = find_populated(mp, &ask, plan->private_file, &populated, huge);
		page_set_merge(&populated, &plan->present);
		page_set_merge(&populated, &plan->again);
	}
	if (r >= 0) {
		page_set_and(w, &populated, &plan->go);
		page_set_clear(&all);
		page_set_add(&all, plan->start, plan->end);
		page_set_minus(whole ? &all : w, &populated, &gone);
		page_set_and(&gone, &mp->sent, &plan->drop);
		if (huge)
			huge_drop(huge, &gone, &plan->drop);
	} else {
		r = error_set(e, -r, "pid %d: scan 0x%llx-0x%llx", mp->pid, (unsigned long long)plan->start,
			      (unsigned long long)plan->end);
	}
	page_set_deinit(&populated);
	page_set_deinit(&all);
	page_set_deinit(&gone);
	page_set_deinit(&ask);
	return r;
}

int memory_resolve(struct process *p, bool final, struct error *e)
{
	struct memory_process *mp = p->data;
	int r = 0;

	for (size_t i = 0; i < mp->n_plan && r >= 0; i++)
		r = resolve_vma(mp, &mp->plan[i], final, e);
	return r;
}
