/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From one layout to another, by batches that run inside the skeleton.
 *
 * The same code makes the first layout (from nothing) and follows the target between rounds: a piece that is
 * the same memory in both layouts stays with its contents; what is only in the old one is unmapped, what is
 * only in the new one is mapped; protection and advice that differ are set.  "The same memory" is decided by
 * backing and offset, so that growing, shrinking, splitting and merging VMAs keep what they have.
 *
 * The program file must be set (PR_SET_MM_MAP with a descriptor) while no mapping of the previous one exists:
 * right after everything was unmapped, before the first VMA.
 */
#include "state/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "arch/arch.h"
#include "arch/x86_64/vdso.h"
#include "base/util.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA           0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#define MADV_GUARD_INSTALL_ 102  /* linux/mman.h, since 6.13 */
#define MAP_DROPPABLE_      8    /* linux/mman.h, since 6.11 */
#define BATCH_ENTRIES       4096 /* entries of one batch: its size stays far below the region's */

bool layout_is_special(const Ferry__Vma *v)
{
	return v->kind == FERRY__VMA_KIND__VMA_VDSO || v->kind == FERRY__VMA_KIND__VMA_VVAR ||
	       v->kind == FERRY__VMA_KIND__VMA_VVAR_VCLOCK;
}

bool layout_is_ring(const Ferry__Vma *v)
{
	return v->kind == FERRY__VMA_KIND__VMA_RING || v->kind == FERRY__VMA_KIND__VMA_AIO;
}

/* Flags that are part of the mapping itself and cannot be changed later. */
static uint64_t fixed_flags(const Ferry__Vma *v)
{
	return v->flags & (FERRY__VMA_FLAG__VMA_GROWSDOWN | FERRY__VMA_FLAG__VMA_NORESERVE |
			   FERRY__VMA_FLAG__VMA_DROPPABLE);
}

/* Do @a and @b map the same memory where they overlap? */
static bool same_memory(const Ferry__Vma *a, const Ferry__Vma *b)
{
	if (a->kind != b->kind || a->shared != b->shared || fixed_flags(a) != fixed_flags(b))
		return false;
	if (a->kind == FERRY__VMA_KIND__VMA_ANON || layout_is_ring(a))
		return true;
	if (a->offset - a->start != b->offset - b->start && !layout_is_special(a))
		return false;
	if (layout_is_special(a))
		return a->start == b->start && a->end == b->end;
	if (a->kind == FERRY__VMA_KIND__VMA_OBJECT)
		return a->object == b->object && (!a->shared || a->file_writable == b->file_writable);
	return !strcmp(a->path, b->path) && a->file_writable == b->file_writable;
}

static const Ferry__Vma *find_kind(const Ferry__Mm *mm, Ferry__VmaKind kind)
{
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (mm->vmas[i]->kind == kind)
			return mm->vmas[i];
	return NULL;
}

bool layout_is_other_program(const Ferry__Mm *old, const Ferry__Mm *new)
{
	const Ferry__Vma *a = find_kind(old, FERRY__VMA_KIND__VMA_VDSO),
			 *b = find_kind(new, FERRY__VMA_KIND__VMA_VDSO);

	return strcmp(old->exe, new->exe) != 0 || old->start_stack != new->start_stack ||
	       old->start_brk != new->start_brk || (a ? a->start : 0) != (b ? b->start : 0);
}

void layout_common(const Ferry__Mm *a, const Ferry__Mm *b, bool fork, struct page_set *ret)
{
	const uint64_t not_inherited = FERRY__VMA_FLAG__VMA_DONTFORK | FERRY__VMA_FLAG__VMA_WIPEONFORK;
	size_t j = 0;

	for (size_t i = 0; i < a->n_vmas; i++) {
		const Ferry__Vma *v = a->vmas[i];

		if (v->shared || layout_is_special(v) ||
		    (fork && (v->flags & not_inherited || hugetlb_is_private(v))))
			continue;
		while (j < b->n_vmas && b->vmas[j]->end <= v->start)
			j++;
		for (size_t k = j; k < b->n_vmas && b->vmas[k]->start < v->end; k++)
			if (same_memory(v, b->vmas[k]))
				page_set_add(ret, MAX(v->start, b->vmas[k]->start),
					     MIN(v->end, b->vmas[k]->end));
	}
}

Ferry__Mm *layout_of_clone(const Ferry__Mm *mm)
{
	size_t size = ferry__mm__get_packed_size(mm), n = 0;
	cleanup_free uint8_t *buf = xmalloc(size);

	ferry__mm__pack(mm, buf);
	Ferry__Mm *c = ferry__mm__unpack(NULL, size, buf);

	for (size_t i = 0; i < c->n_vmas; i++) {
		Ferry__Vma *v = c->vmas[i];

		if (v->flags & FERRY__VMA_FLAG__VMA_DONTFORK) {
			ferry__vma__free_unpacked(v, NULL);
			continue;
		}
		v->flags &= ~(uint64_t)(FERRY__VMA_FLAG__VMA_LOCKED | FERRY__VMA_FLAG__VMA_LOCKONFAULT);
		c->vmas[n++] = v;
	}
	c->n_vmas = n;
	return c;
}

bool layout_overlaps(const Ferry__Mm *mm, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (mm->vmas[i]->start < end && mm->vmas[i]->end > start)
			return true;
	return false;
}

/* @running: the target may be writing it just now. */
static int check_file(pid_t pid, const char *path, uint64_t size, int64_t mtime_ns, bool shared, bool running,
		      struct error *e)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return error_set(e, errno, "pid %d maps %s, which is not usable here", pid, path);
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 5) && !shared)
		return 0;
	if (!S_ISREG(st.st_mode))
		return error_say(e, EINVAL, "pid %d maps %s, which is not a regular file here", pid, path);
	int64_t mtime = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;

	/* One that is older than the source's, or of the same time and shorter, is another one. */
	if (running && (mtime > mtime_ns || (mtime == mtime_ns && (uint64_t)st.st_size > size)))
		return 0;
	/* A shared mapping writes the file itself, so its time says nothing. */
	if ((uint64_t)st.st_size != size || (!shared && mtime != mtime_ns))
		return error_say(e, ESTALE, "pid %d maps %s, which has changed: %s differs from the image",
				 pid, path,
				 (uint64_t)st.st_size != size ? "its size" : "its modification time");
	return 0;
}

int layout_check_files(const Ferry__Mm *mm, pid_t pid, bool running, struct error *e)
{
	const char *last = NULL;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];

		if (v->kind != FERRY__VMA_KIND__VMA_FILE || (last && !strcmp(last, v->path)))
			continue;
		last = v->path;
		int r = check_file(pid, v->path, v->file_size, v->file_mtime_ns, v->shared, running, e);

		if (r < 0)
			return r;
	}
	return check_file(pid, mm->exe, mm->exe_size, mm->exe_mtime_ns, false, false, e);
}

/* --- batches --------------------------------------------------------------------------------------- */

struct builder {
	const struct layout_target *t;
	struct batch b;
	const char *open_path; /* file that `file` is open on */
	uint64_t open_object;
	bool open_writable;
	unsigned file;
	bool has_file;
	int host_fd; /* ours, of what `file` was fetched from; -1 */
	const Ferry__Mm *old, *new;
	uint64_t attached_object, attached_at; /* the segment that was attached last, as a whole */
	struct error *e;
};

static void close_file(struct builder *w)
{
	if (w->has_file)
		batch_call(&w->b, "close mapped file", SYS_close, ARG_RESULT(w->file));
	w->has_file = false;
}

static int flush(struct builder *w)
{
	close_file(w);
	if (!w->b.n)
		return 0;
	int r = w->t->run(w->t->ctx, &w->b, w->e);

	if (w->host_fd >= 0)
		close(TAKE_FD(w->host_fd));
	batch_deinit(&w->b);
	w->b = (struct batch)BATCH_INIT;
	return r;
}

static int room(struct builder *w)
{
	return w->b.n >= BATCH_ENTRIES ? flush(w) : 0;
}

static int reopen_read_only(struct builder *w, int fd)
{
	char path[64];
	int r = w->host_fd >= 0 ? flush(w) : 0;

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	w->host_fd = open(path, O_RDONLY | O_CLOEXEC);
	return w->host_fd < 0
		       ? error_set(w->e, errno, "pid %d: open a shared memory object for reading", w->t->pid)
		       : 0;
}

static int open_backing(struct builder *w, const Ferry__Vma *v)
{
	bool object = v->kind == FERRY__VMA_KIND__VMA_OBJECT;
	bool can_be_written = v->file_writable || (v->prot & PROT_WRITE);
	/* A shared mapping of an object that never could be written must not count as one that can: seals
	 * would fail. */
	bool writable = object ? !v->shared || can_be_written : v->shared && can_be_written;

	if (w->has_file && w->open_writable == writable &&
	    (object ? !w->open_path && w->open_object == v->object
		    : w->open_path && !strcmp(w->open_path, v->path)))
		return 0;
	close_file(w);
	if (object) {
		int fd = w->t->object_fd(w->t->ctx, v->object);

		if (fd < 0)
			return error_say(
				w->e, EINVAL,
				"pid %d: mapping 0x%llx: shared memory object %llu is not in the image",
				w->t->pid, (unsigned long long)v->start, (unsigned long long)v->object);
		if (!writable) {
			int r = reopen_read_only(w, fd);

			if (r < 0)
				return r;
			fd = w->host_fd;
		}
		w->file = rebuild_fetch_fd(&w->b, fd);
	} else {
		w->file =
			batch_call(&w->b, "open mapped file", SYS_openat, ARG(AT_FDCWD),
				   ARG_STR(&w->b, v->path), ARG((writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
	}
	w->has_file = true;
	w->open_path = object ? NULL : v->path;
	w->open_object = v->object;
	w->open_writable = writable;
	return 0;
}

static bool same_attachment(const Ferry__Vma *a, const Ferry__Vma *b)
{
	return b->sysv_size && a->object == b->object && a->start - a->offset == b->start - b->offset;
}

/* Can the segment of @v be attached in one piece, as it was? Not if something else lies where a part of it
 * was unmapped, nor if a part is there already. */
static bool attaches_whole(const struct builder *w, const Ferry__Vma *v)
{
	uint64_t base = v->start - v->offset, end = base + PAGE_ROUND_UP(v->sysv_size);

	for (size_t i = 0; i < w->new->n_vmas; i++) {
		const Ferry__Vma *n = w->new->vmas[i];

		if (n->start < end && n->end > base && !same_attachment(v, n))
			return false;
		if (same_attachment(v, n) && n->file_writable != v->file_writable)
			return false;
	}
	for (size_t i = 0; w->old && i < w->old->n_vmas; i++)
		if (same_attachment(v, w->old->vmas[i]))
			return false;
	return true;
}

static void attach_whole(struct builder *w, const Ferry__Vma *v)
{
	uint64_t base = v->start - v->offset, at = base, end = base + PAGE_ROUND_UP(v->sysv_size);
	unsigned i = batch_call(&w->b, "attach System V shared memory", SYS_shmat, ARG(v->sysv_id), ARG(base),
				ARG(v->file_writable ? 0 : SHM_RDONLY));

	batch_accept_equal(&w->b, i, base);
	for (size_t k = 0; k < w->new->n_vmas; k++) {
		const Ferry__Vma *n = w->new->vmas[k];

		if (!same_attachment(v, n))
			continue;
		if (n->start > at)
			batch_call(&w->b, "unmap", SYS_munmap, ARG(at), ARG(n->start - at));
		at = n->end;
	}
	if (at < end)
		batch_call(&w->b, "unmap", SYS_munmap, ARG(at), ARG(end - at));
	w->attached_object = v->object;
	w->attached_at = base;
}

/* Attach somewhere, move the piece to its place, unmap the rest. */
static void attach_and_move(struct builder *w, const Ferry__Vma *v, uint64_t start, uint64_t end)
{
	uint64_t offset = v->offset + (start - v->start), length = end - start;
	unsigned at = batch_call(&w->b, "attach System V shared memory", SYS_shmat, ARG(v->sysv_id), ARG(0),
				 ARG(v->file_writable ? 0 : SHM_RDONLY));
	unsigned piece = batch_op(&w->b, "find a piece", PB_OP_ADD, ARG_RESULT(at), ARG(offset));
	unsigned moved =
		batch_call(&w->b, "move a piece of System V shared memory", SYS_mremap, ARG_RESULT(piece),
			   ARG(length), ARG(length), ARG(MREMAP_MAYMOVE | MREMAP_FIXED), ARG(start));

	batch_accept_equal(&w->b, moved, start);
	batch_call(&w->b, "unmap", SYS_munmap, ARG_RESULT(at), ARG(PAGE_ROUND_UP(v->sysv_size)));
}

static void attach_piece(struct builder *w, const Ferry__Vma *v, uint64_t start, uint64_t end)
{
	uint32_t prot = PROT_READ | (v->file_writable ? PROT_WRITE : 0);

	if (w->attached_object != v->object || w->attached_at != v->start - v->offset) {
		if (attaches_whole(w, v))
			attach_whole(w, v);
		else
			attach_and_move(w, v, start, end);
	}
	if (v->prot != prot)
		batch_call(&w->b, "mprotect", SYS_mprotect, ARG(start), ARG(end - start), ARG(v->prot));
}

static int map_piece(struct builder *w, const Ferry__Vma *v, uint64_t start, uint64_t end)
{
	uint64_t flags = MAP_FIXED_NOREPLACE | (v->shared ? MAP_SHARED : MAP_PRIVATE);
	int r = room(w);

	if (r < 0)
		return r;
	if (v->sysv_size) {
		attach_piece(w, v, start, end);
		return 0;
	}
	if (v->flags & FERRY__VMA_FLAG__VMA_NORESERVE)
		flags |= MAP_NORESERVE;
	if (v->kind == FERRY__VMA_KIND__VMA_ANON) {
		flags |= MAP_ANONYMOUS;
		if (v->flags & FERRY__VMA_FLAG__VMA_DROPPABLE)
			flags = (flags & ~(uint64_t)MAP_PRIVATE) | MAP_DROPPABLE_;
		if (v->flags & FERRY__VMA_FLAG__VMA_GROWSDOWN)
			flags |= MAP_GROWSDOWN;
		unsigned i = batch_call(&w->b, "map anonymous memory", SYS_mmap, ARG(start), ARG(end - start),
					ARG(v->prot), ARG(flags), ARG(-1), ARG(0));

		batch_accept_equal(&w->b, i, start);
		return 0;
	}
	if (layout_is_ring(v)) { /* its place, until it is made */
		unsigned i =
			batch_call(&w->b, "keep the place of rings", SYS_mmap, ARG(start), ARG(end - start),
				   ARG(PROT_NONE),
				   ARG(MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE),
				   ARG(-1), ARG(0));

		batch_accept_equal(&w->b, i, start);
		return 0;
	}
	r = open_backing(w, v);
	if (r < 0)
		return r;
	unsigned i = batch_call(
		&w->b, v->kind == FERRY__VMA_KIND__VMA_OBJECT ? "map shared memory object" : "map file",
		SYS_mmap, ARG(start), ARG(end - start), ARG(v->prot), ARG(flags), ARG_RESULT(w->file),
		ARG(v->offset + (start - v->start)));

	batch_accept_equal(&w->b, i, start);
	return 0;
}

static const struct {
	uint64_t flag;
	int on, off;
	const char *label;
} advice[] = {
	{FERRY__VMA_FLAG__VMA_DONTFORK, MADV_DONTFORK, MADV_DOFORK, "madvise DONTFORK"},
	{FERRY__VMA_FLAG__VMA_DONTDUMP, MADV_DONTDUMP, MADV_DODUMP, "madvise DONTDUMP"},
	{FERRY__VMA_FLAG__VMA_WIPEONFORK, MADV_WIPEONFORK, MADV_KEEPONFORK, "madvise WIPEONFORK"},
	{FERRY__VMA_FLAG__VMA_HUGEPAGE, MADV_HUGEPAGE, -1, "madvise HUGEPAGE"},
	{FERRY__VMA_FLAG__VMA_NOHUGEPAGE, MADV_NOHUGEPAGE, -1, "madvise NOHUGEPAGE"},
	{FERRY__VMA_FLAG__VMA_SEQ_READ, MADV_SEQUENTIAL, MADV_NORMAL, "madvise SEQUENTIAL"},
	{FERRY__VMA_FLAG__VMA_RAND_READ, MADV_RANDOM, MADV_NORMAL, "madvise RANDOM"},
	{FERRY__VMA_FLAG__VMA_MERGEABLE, MADV_MERGEABLE, MADV_UNMERGEABLE, "madvise MERGEABLE"},
};

/* Bring [start, end) of @v from (@prot, @flags, @name) to what @v says. */
static int adjust_piece(struct builder *w, const Ferry__Vma *v, uint64_t start, uint64_t end, uint32_t prot,
			uint64_t flags, const char *name)
{
	int r = room(w);

	if (r < 0)
		return r;
	if (prot != v->prot)
		batch_call(&w->b, "mprotect", SYS_mprotect, ARG(start), ARG(end - start), ARG(v->prot));
	for (size_t i = 0; i < ARRAY_SIZE(advice); i++) {
		bool was = flags & advice[i].flag, is = v->flags & advice[i].flag;

		if (was != is && (is || advice[i].off >= 0))
			batch_call(&w->b, advice[i].label, SYS_madvise, ARG(start), ARG(end - start),
				   ARG(is ? advice[i].on : advice[i].off));
	}
	bool was = flags & FERRY__VMA_FLAG__VMA_LOCKED, is = v->flags & FERRY__VMA_FLAG__VMA_LOCKED;

	/* Locking populates, as it did at the source: ONFAULT first would show a flag the source lacks. */
	if (is && !was)
		batch_call(&w->b, "mlock", SYS_mlock2, ARG(start), ARG(end - start),
			   ARG(v->flags & FERRY__VMA_FLAG__VMA_LOCKONFAULT ? MLOCK_ONFAULT : 0));
	else if (was && !is)
		batch_call(&w->b, "munlock", SYS_munlock, ARG(start), ARG(end - start));
	if ((v->kind == FERRY__VMA_KIND__VMA_ANON || v->kind == FERRY__VMA_KIND__VMA_OBJECT) &&
	    strcmp(name, v->path) && !strncmp(v->path, "[anon", 5)) {
		cleanup_free char *text = xstrdup(strchr(v->path, ':') + 1);

		text[strlen(text) - 1] = 0; /* the closing bracket */
		unsigned i = batch_call(&w->b, "name memory", SYS_prctl, ARG(PR_SET_VMA),
					ARG(PR_SET_VMA_ANON_NAME), ARG(start), ARG(end - start),
					ARG_STR(&w->b, text));

		batch_accept_errno(&w->b, i,
				   EINVAL); /* a kernel without CONFIG_ANON_VMA_NAME shows no names either */
	}
	return 0;
}

static int unmap(struct builder *w, uint64_t start, uint64_t end)
{
	int r = room(w);

	if (r < 0 || start >= end)
		return r;
	batch_call(&w->b, "unmap", SYS_munmap, ARG(start), ARG(end - start));
	return 0;
}

void layout_set_numbers(const Ferry__Mm *mm, struct batch *b, int exe_entry)
{
	struct prctl_mm_map map = {
		.start_code = mm->start_code,
		.end_code = mm->end_code,
		.start_data = mm->start_data,
		.end_data = mm->end_data,
		.start_brk = mm->start_brk,
		.brk = MAX(mm->brk, mm->start_brk),
		.start_stack = mm->start_stack,
		.arg_start = mm->arg_start,
		.arg_end = mm->arg_end,
		.env_start = mm->env_start,
		.env_end = mm->env_end,
		.auxv_size = mm->auxv.len,
		.exe_fd = -1,
	};
	size_t auxv = batch_put(b, mm->auxv.data, mm->auxv.len);
	size_t off = batch_put(b, &map, sizeof(map));
	size_t auxv_ptr = off + offsetof(struct prctl_mm_map, auxv);

	/* Pointers and results are only known inside: the interpreter puts them into the struct. */
	batch_op(b, "auxv pointer", PB_OP_STORE, ARG_DATA(auxv_ptr), ARG_DATA(auxv), ARG(8));
	if (exe_entry >= 0)
		batch_store_result(b, off + offsetof(struct prctl_mm_map, exe_fd), exe_entry, 4);
	batch_call(b, "set the numbers of the address space (PR_SET_MM_MAP)", SYS_prctl, ARG(PR_SET_MM),
		   ARG(PR_SET_MM_MAP), ARG_DATA(off), ARG(sizeof(map)), ARG(0));
}

/* Memory that was writable once counts as committed ever after (and does not merge with what was not): but
 * only what has private pages by now. */
static void account(const Ferry__Vma *v, struct batch *b)
{
	if (!(v->flags & FERRY__VMA_FLAG__VMA_ACCOUNT) || v->shared || (v->prot & PROT_WRITE))
		return;
	batch_call(b, "mprotect", SYS_mprotect, ARG(v->start), ARG(v->end - v->start),
		   ARG(v->prot | PROT_WRITE));
	batch_call(b, "mprotect", SYS_mprotect, ARG(v->start), ARG(v->end - v->start), ARG(v->prot));
}

void layout_finish(const Ferry__Mm *mm, struct batch *b)
{
	for (size_t i = 0; i < mm->n_vmas; i++)
		account(mm->vmas[i], b);
	for (size_t i = 0; i + 1 < mm->n_guards; i += 2)
		batch_call(b, "guard region", SYS_madvise, ARG(mm->guards[i]),
			   ARG(mm->guards[i + 1] - mm->guards[i]), ARG(MADV_GUARD_INSTALL_));
	if (mm->def_flags & MCL_FUTURE)
		batch_call(b, "mlockall", SYS_mlockall, ARG(MCL_FUTURE));
}

/* Nothing of the previous program stays but the region; then program file, vdso. */
static int start_over(struct builder *w, const Ferry__Mm *new)
{
	const Ferry__Vma *vdso = find_kind(new, FERRY__VMA_KIND__VMA_VDSO);
	int r = unmap(w, 0, w->t->region_start);

	if (r >= 0)
		r = unmap(w, w->t->region_end, arch_task_size());
	if (r < 0)
		return r;
	unsigned exe = batch_call(&w->b, "open program file", SYS_openat, ARG(AT_FDCWD),
				  ARG_STR(&w->b, new->exe), ARG(O_RDONLY | O_CLOEXEC));

	layout_set_numbers(new, &w->b, exe);
	batch_call(&w->b, "close program file", SYS_close, ARG_RESULT(exe));
	if (vdso) {
		uint64_t first = vdso->start;

		for (size_t i = 0; i < new->n_vmas; i++)
			if (layout_is_special(new->vmas[i]))
				first = MIN(first, new->vmas[i]->start);
		batch_call(&w->b, "map the vdso", ARCH_VDSO_MAP_SYSCALL, ARG(ARCH_VDSO_MAP_CODE), ARG(first));
	}
	return 0;
}

static int unmap_old(struct builder *w, const Ferry__Mm *old, const Ferry__Mm *new)
{
	size_t j = 0;
	int r = 0;

	for (size_t i = 0; i < old->n_vmas && r >= 0; i++) {
		const Ferry__Vma *o = old->vmas[i];
		uint64_t at = o->start;

		while (j < new->n_vmas &&new->vmas[j]->end <= o->start)
			j++;
		for (size_t k = j; k < new->n_vmas &&new->vmas[k]->start < o->end &&r >= 0; k++) {
			const Ferry__Vma *n = new->vmas[k];

			if (!same_memory(o, n))
				continue;
			if (n->start > at)
				r = unmap(w, at, n->start);
			at = MAX(at, MIN(n->end, o->end));
		}
		if (r >= 0 && at < o->end)
			r = unmap(w, at, o->end);
	}
	return r;
}

static int map_new(struct builder *w, const Ferry__Mm *old, const Ferry__Mm *new)
{
	size_t j = 0;
	int r = 0;

	for (size_t i = 0; i < new->n_vmas &&r >= 0; i++) {
		const Ferry__Vma *n = new->vmas[i];
		uint64_t at = n->start;

		if (layout_is_special(n))
			continue;
		while (old && j < old->n_vmas && old->vmas[j]->end <= n->start)
			j++;
		for (size_t k = j; old && k < old->n_vmas && old->vmas[k]->start < n->end && r >= 0; k++) {
			const Ferry__Vma *o = old->vmas[k];

			if (!same_memory(o, n))
				continue;
			if (o->start > at) {
				r = map_piece(w, n, at, o->start);
				if (r >= 0)
					r = adjust_piece(w, n, at, o->start, n->prot, 0, "");
			}
			uint64_t s = MAX(o->start, n->start), t = MIN(o->end, n->end);

			if (r >= 0 && s < t)
				r = adjust_piece(w, n, s, t, o->prot, o->flags, o->path);
			at = MAX(at, t);
		}
		if (r >= 0 && at < n->end) {
			r = map_piece(w, n, at, n->end);
			if (r >= 0)
				r = adjust_piece(w, n, at, n->end, n->prot, 0, "");
		}
	}
	return r;
}

int layout_apply(const struct layout_target *t, const Ferry__Mm *old, const Ferry__Mm *new, struct error *e)
{
	struct builder w = {.t = t, .b = BATCH_INIT, .e = e, .host_fd = -1, .old = old, .new = new};
	int r = old ? unmap_old(&w, old, new) : start_over(&w, new);

	if (r >= 0)
		r = map_new(&w, old, new);
	if (r >= 0)
		r = flush(&w);
	if (w.host_fd >= 0)
		close(w.host_fd);
	batch_deinit(&w.b);
	return r;
}
