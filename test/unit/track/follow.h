/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A copier in miniature: follows a process in rounds with a backend into a shadow copy, the way a migration
 * does, and compares it with the process after the final collect.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/page_set.h"
#include "base/util.h"
#include "procfs/pagemap.h"
#include "procfs/procfs.h"
#include "track/backend.h"

#define P 4096ull

/* Pages by address: open addressing, no deletion (a page that is dropped is marked). */
struct shadow {
	struct slot {
		uint64_t addr;
		bool there;
		char *data;
	} * slot;
	size_t size, used;
};

struct follow {
	const struct dirty_backend_ops *ops;
	struct dirty_session *session;
	pid_t pid;
	int mem, pagemap;
	struct shadow shadow;
	struct page_set tracked, there; /* there: pages of the shadow in use */
	struct page_set unread;         /* to be copied again */
	unsigned long copied, same, rounds, rearmed, untrackable;
	unsigned long reported, needless; /* pages by the backend; of these: equal to the copy */
	bool counts;                      /* what is copied now was reported */
	char text[512];
};

static struct slot *shadow_slot(struct shadow *s, uint64_t addr)
{
	if (s->used * 2 >= s->size) {
		struct shadow old = *s;

		s->size = old.size ? old.size * 2 : 1 << 14;
		s->slot = xcalloc(s->size, sizeof(*s->slot));
		for (size_t i = 0; i < old.size; i++)
			if (old.slot[i].data) {
				size_t h = old.slot[i].addr / P * 0x9e3779b97f4a7c15ull >> 20;

				while (s->slot[h % s->size].data)
					h++;
				s->slot[h % s->size] = old.slot[i];
			}
		free(old.slot);
	}
	size_t h = addr / P * 0x9e3779b97f4a7c15ull >> 20;

	while (s->slot[h % s->size].data && s->slot[h % s->size].addr != addr)
		h++;
	return &s->slot[h % s->size];
}

static void shadow_free(struct shadow *s)
{
	for (size_t i = 0; i < s->size; i++)
		free(s->slot[i].data);
	free(s->slot);
}

static void drop(struct follow *f, uint64_t start, uint64_t end)
{
	page_set_remove_range(&f->there, start, end);
}

static void copy(struct follow *f, uint64_t start, uint64_t end, bool unsure)
{
	char was[P];

	for (; start < end; start += P) {
		struct slot *s = shadow_slot(&f->shadow, start);

		if (!s->data) {
			s->data = xmalloc(P);
			s->addr = start;
			f->shadow.used++;
		}
		bool there = page_set_has(&f->there, start), known = unsure && there;

		if (there)
			memcpy(was, s->data, P);
		if (pread(f->mem, s->data, P, (off_t)start) == (ssize_t)P)
			page_set_add(&f->there, start, start + P);
		else
			drop(f, start, start + P); /* unmapped meanwhile */
		f->needless += f->counts && there && memcmp(was, s->data, P) == 0;
		f->reported += f->counts;
		/* A suspected page that is the same is no copy. */
		if (known && memcmp(was, s->data, P) == 0)
			f->same++;
		else
			f->copied++;
	}
}

/* What was copied while the target ran may have been other memory. */
static void check_copied(struct follow *f, enum dirty_collect_mode mode, uint64_t start, uint64_t end)
{
	if (mode == DIRTY_ROUND && f->ops->still_there && f->ops->still_there(f->session, start, end) != 1)
		page_set_add(&f->unread, start, end);
}

static void copy_again(struct follow *f, const struct proc_vma *v, enum dirty_collect_mode mode)
{
	struct page_set vma = PAGE_SET_INIT, again = PAGE_SET_INIT;

	page_set_add(&vma, v->start, v->end);
	page_set_and(&f->unread, &vma, &again);
	page_set_remove(&f->unread, &again);
	for (size_t i = 0; i < again.n; i++) {
		copy(f, again.r[i].start, again.r[i].end, false);
		check_copied(f, mode, again.r[i].start, again.r[i].end);
	}
	page_set_deinit(&vma);
	page_set_deinit(&again);
}

static int kind_of(const struct proc_vma *v)
{
	if (v->shared)
		return DIRTY_VMA_SHARED;
	return v->ino ? DIRTY_VMA_PRIVATE_FILE : DIRTY_VMA_ANON;
}

static bool is_kernels(const struct proc_vma *v)
{
	return strcmp(v->path, "[vvar]") == 0 || strcmp(v->path, "[vvar_vclock]") == 0 ||
	       strcmp(v->path, "[vdso]") == 0 || strcmp(v->path, "[vsyscall]") == 0;
}

static int copy_all(struct follow *f, const struct proc_vma *v, enum dirty_collect_mode mode)
{
	struct page_set set = PAGE_SET_INIT;
	int r = pagemap_populated(f->pagemap, v->start, v->end, kind_of(v) == DIRTY_VMA_PRIVATE_FILE, &set);

	drop(f, v->start, v->end);
	for (size_t i = 0; i < set.n; i++) {
		copy(f, set.r[i].start, set.r[i].end, false);
		check_copied(f, mode, set.r[i].start, set.r[i].end);
	}
	page_set_deinit(&set);
	return r;
}

static int apply(struct follow *f, const struct proc_vma *v, enum dirty_collect_mode mode,
		 const struct dirty_range *r, size_t n)
{
	struct page_set present = PAGE_SET_INIT, gone = PAGE_SET_INIT;
	uint64_t last = v->start;

	copy_again(f, v, mode);
	for (size_t i = 0; i < n; last = r[i++].end) {
		if (r[i].start < last || r[i].end > v->end || r[i].start >= r[i].end ||
		    (r[i].start | r[i].end) % P) {
			snprintf(f->text, sizeof(f->text), "bad answer for %lx: %lx-%lx", v->start,
				 r[i].start, r[i].end);
			return -EINVAL;
		}
		if (r[i].flags & DIRTY_PRESENT)
			page_set_add(&present, r[i].start, r[i].end);
		if (!(r[i].flags & DIRTY_WRITTEN))
			continue;
		f->counts = true;
		if (mode == DIRTY_ROUND || (r[i].flags & DIRTY_PRESENT)) {
			copy(f, r[i].start, r[i].end, r[i].flags & DIRTY_UNSURE);
			check_copied(f, mode, r[i].start, r[i].end);
		} else
			drop(f, r[i].start, r[i].end);
		f->counts = false;
	}
	if (mode == DIRTY_FINAL && kind_of(v) == DIRTY_VMA_PRIVATE_FILE) {
		page_set_add(&gone, v->start, v->end);
		page_set_remove(&gone, &present);
		page_set_remove(&f->there, &gone);
	}
	page_set_deinit(&present);
	page_set_deinit(&gone);
	return 0;
}

/* What has to be copied of one VMA: found while the target may stand, copied when it runs again. */
struct todo {
	struct proc_vma vma;
	bool all;
	struct dirty_range *r;
	size_t n;
};

static int find_vma(struct follow *f, struct todo *todo, enum dirty_collect_mode mode)
{
	const struct proc_vma *v = &todo->vma;
	const struct dirty_vma d = {.start = v->start, .end = v->end, .kind = (uint32_t)kind_of(v)};
	struct page_set one = PAGE_SET_INIT, known = PAGE_SET_INIT;
	const struct dirty_range *r;
	ssize_t n = -EPERM;

	page_set_add(&one, v->start, v->end);
	page_set_and(&one, &f->tracked, &known);
	bool try = page_set_bytes(&known) == v->end - v->start;

	page_set_deinit(&one);
	page_set_deinit(&known);
	if (try)
		n = f->ops->collect(f->session, &d, mode, &r, f->text, sizeof(f->text));
	if (n == -ESRCH)
		return -ESRCH;
	if (n >= 0) {
		todo->r = n ? xmemdup(r, (size_t)n * sizeof(*r)) : NULL;
		todo->n = (size_t)n;
		return 0;
	}
	todo->all = true;
	f->rearmed += try;
	page_set_remove_range(&f->tracked, v->start, v->end);
	if (mode == DIRTY_FINAL || !(f->ops->kinds & DIRTY_KIND(d.kind)))
		return 0;
	int a = f->ops->arm(f->session, &d, f->text, sizeof(f->text));

	if (a == -ESRCH)
		return a;
	if (a == 0)
		page_set_add(&f->tracked, v->start, v->end);
	f->untrackable += a != 0;
	return 0;
}

static void keep_mapped(struct follow *f, const struct proc_maps *m)
{
	struct page_set mapped = PAGE_SET_INIT, kept = PAGE_SET_INIT;

	for (size_t i = 0; i < m->n; i++)
		page_set_add(&mapped, m->v[i].start, m->v[i].end);
	page_set_and(&f->there, &mapped, &kept);
	page_set_clear(&f->there);
	page_set_merge(&f->there, &kept);
	page_set_and(&f->tracked, &mapped, &kept);
	page_set_clear(&f->tracked);
	page_set_merge(&f->tracked, &kept);
	page_set_deinit(&mapped);
	page_set_deinit(&kept);
}

/* One round, or the final pass. @let_go, may be NULL: called between collecting and copying. 0 or -errno. */
static int follow_collect(struct follow *f, enum dirty_collect_mode mode, void (*let_go)(pid_t pid))
{
	struct proc_maps m;
	struct error e = ERROR_INIT;
	int r = proc_maps_read(f->pid, false, &m, &e);

	if (r < 0) {
		snprintf(f->text, sizeof(f->text), "%.500s", e.text);
		return r;
	}
	struct todo *todo = xcalloc(m.n, sizeof(*todo));

	keep_mapped(f, &m);
	r = f->ops->begin(f->session, mode, f->text, sizeof(f->text));
	if (r < 0 && r != -ESRCH)
		page_set_clear(&f->tracked), r = 0;
	for (size_t i = 0; i < m.n && r == 0; i++) {
		todo[i].vma = m.v[i];
		if (!is_kernels(&m.v[i]))
			r = find_vma(f, &todo[i], mode);
	}
	if (r == 0)
		r = f->ops->end(f->session, mode, f->text, sizeof(f->text));
	if (r < 0 && r != -ESRCH)
		page_set_clear(&f->tracked), r = 0;
	if (let_go)
		let_go(f->pid);
	for (size_t i = 0; i < m.n; i++) {
		if (r == 0 && !is_kernels(&m.v[i]))
			r = todo[i].all ? copy_all(f, &m.v[i], mode)
					: apply(f, &m.v[i], mode, todo[i].r, todo[i].n);
		free(todo[i].r);
	}
	free(todo);
	proc_maps_deinit(&m);
	f->rounds++;
	return r;
}

/* --- comparison ------------------------------------------------------------------------------------- */

static int open_backing(pid_t pid, const struct proc_vma *v)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, v->start, v->end);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static unsigned long compare_vma(struct follow *f, const struct proc_vma *v)
{
	struct page_set look = PAGE_SET_INIT, mine = PAGE_SET_INIT, one = PAGE_SET_INIT;
	cleanup_close int file = v->ino ? open_backing(f->pid, v) : -1;
	unsigned long wrong = 0;

	page_set_add(&one, v->start, v->end);
	page_set_and(&f->there, &one, &mine);
	pagemap_populated(f->pagemap, v->start, v->end, kind_of(v) == DIRTY_VMA_PRIVATE_FILE, &look);
	page_set_merge(&look, &mine);
	for (size_t i = 0; i < look.n; i++)
		for (uint64_t a = look.r[i].start; a < look.r[i].end; a += P) {
			char now[P], want[P] = {0};

			if (page_set_has(&mine, a))
				memcpy(want, shadow_slot(&f->shadow, a)->data, P);
			else if (file >= 0 && pread(file, want, P, (off_t)(v->offset + a - v->start)) < 0)
				continue;
			if (pread(f->mem, now, P, (off_t)a) != (ssize_t)P || memcmp(now, want, P) == 0)
				continue;
			if (wrong++ == 0)
				fprintf(stderr, "wrong: %lx in %lx-%lx %s%s, %s the copy\n", a, v->start,
					v->end, v->shared ? "shared " : "", v->path,
					page_set_has(&mine, a) ? "in" : "not in");
		}
	page_set_deinit(&look);
	page_set_deinit(&mine);
	page_set_deinit(&one);
	return wrong;
}

/* Pages that differ between the stopped process and the copy. */
static unsigned long follow_compare(struct follow *f)
{
	struct proc_maps m;
	struct error e = ERROR_INIT;
	unsigned long wrong = 0;

	if (proc_maps_read(f->pid, false, &m, &e) < 0)
		return ~0ul;
	for (size_t i = 0; i < m.n; i++)
		if (!is_kernels(&m.v[i]))
			wrong += compare_vma(f, &m.v[i]);
	proc_maps_deinit(&m);
	return wrong;
}

static void follow_deinit(struct follow *f)
{
	if (f->session)
		f->ops->detach(f->session);
	if (f->mem >= 0)
		close(f->mem);
	if (f->pagemap >= 0)
		close(f->pagemap);
	shadow_free(&f->shadow);
	page_set_deinit(&f->tracked);
	page_set_deinit(&f->there);
	page_set_deinit(&f->unread);
}
