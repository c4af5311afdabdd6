/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of an address space: every VMA with what is needed to make it again, and the numbers /proc
 * shows (brk, arguments, auxiliary vector, program file).
 *
 * VmFlags are only in smaps, whose cost grows with the memory that is mapped (it walks the page tables); maps
 * does not.  So flags are read while the target runs, and a later look at maps takes them over for every VMA
 * that was there (or a part of it: only VMAs of equal flags merge); only if some VMA is new is smaps read
 * again.  A flag changed on a whole VMA by madvise(2) or mlock(2) between the last reading and the freeze is
 * the one thing this can miss, so warm looks read the flags anew: not every one, since rounds get as long as
 * that takes then, and the target cannot map or unmap anything meanwhile, but for a twentieth of the time.
 */
#include "state/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "procfs/pagemap.h"
#include "procfs/procfs.h"
#include "state/memory/huge.h"
#include "state/memory/named.h"
#include "state/memory/pkeys.h"

#define LOOK_TRIES                     100
#define PR_THP_DISABLE_EXCEPT_ADVISED_ 2 /* linux/prctl.h, since 6.18 */

static bool same_vma(const struct proc_vma *a, const struct proc_vma *b)
{
	return a->start == b->start && a->end == b->end && a->prot == b->prot && a->shared == b->shared &&
	       a->offset == b->offset && a->ino == b->ino && a->dev_major == b->dev_major &&
	       a->dev_minor == b->dev_minor && !strcmp(a->path, b->path);
}

static Ferry__Vma *vma_dup(const Ferry__Vma *v)
{
	Ferry__Vma *n = xmemdup(v, sizeof(*v));

	n->path = xstrdup(v->path);
	return n;
}

/* What maps showed the last time, beside the Mm made of it. */
struct mm_seen {
	struct proc_maps maps;
	int *index; /* of maps entry i in mm->vmas, -1: not in it (vsyscall) */
};

static void seen_free(struct mm_seen *s)
{
	if (!s)
		return;
	proc_maps_deinit(&s->maps);
	free(s->index);
	free(s);
}

void mm_seen_free(void *p)
{
	seen_free(p);
}

/* Is @v an old VMA that grew, shrank or was split?  The kernel only merges VMAs of equal flags, so it has the
 * flags of the part that was there. */
static bool continues(const struct proc_vma *v, const struct proc_vma *old)
{
	return v->start < old->end && v->end > old->start && v->prot == old->prot &&
	       v->shared == old->shared && v->ino == old->ino && v->dev_major == old->dev_major &&
	       v->dev_minor == old->dev_minor && !strcmp(v->path, old->path) &&
	       (!v->ino || v->offset - v->start == old->offset - old->start);
}

/* The entry of @old that tells the flags of @v; *j is a cursor for ascending calls. NULL: v is new. */
static const struct proc_vma *flags_of(const struct proc_vma *v, const struct mm_seen *old, size_t *j)
{
	while (*j < old->maps.n && old->maps.v[*j].end <= v->start)
		++*j;
	for (size_t k = *j; k < old->maps.n && old->maps.v[k].start < v->end; k++)
		if (continues(v, &old->maps.v[k]))
			return &old->maps.v[k];
	return NULL;
}

/* Take over flags from the last look; false if some VMA is new. */
static bool inherit_flags(struct proc_maps *maps, const struct mm_seen *old)
{
	size_t j = 0;

	for (size_t i = 0; i < maps->n; i++) {
		const struct proc_vma *o = flags_of(&maps->v[i], old, &j);

		if (!o && strcmp(maps->v[i].path, "[vsyscall]"))
			return false;
		if (!o)
			continue;
		maps->v[i].vmflags = o->vmflags;
		maps->v[i].pkey = o->pkey;
	}
	return true;
}

static int read_scalars(pid_t pid, Ferry__Mm *mm, struct error *e)
{
	struct proc_stat st;
	int r = proc_stat_read(pid, 0, &st, e);

	if (r < 0)
		return r;
	mm->start_code = st.start_code;
	mm->end_code = st.end_code;
	mm->start_data = st.start_data;
	mm->end_data = st.end_data;
	mm->start_brk = st.start_brk;
	mm->start_stack = st.start_stack;
	mm->arg_start = st.arg_start;
	mm->arg_end = st.arg_end;
	mm->env_start = st.env_start;
	mm->env_end = st.env_end;
	mm->brk = mm->start_brk;
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (mm->vmas[i]->flags & FERRY__VMA_FLAG__VMA_HEAP)
			mm->brk = MAX(mm->brk, mm->vmas[i]->end);
	cleanup_free char *path = xasprintf("/proc/%d/auxv", pid);
	char *auxv = NULL;
	ssize_t n = read_file(path, &auxv);

	if (n < 0)
		return error_set(e, -n, "read %s", path);
	mm->auxv.data = (uint8_t *)auxv;
	mm->auxv.len = n;
	cleanup_free char *exe = xasprintf("/proc/%d/exe", pid);
	struct stat sb;
	char *target = NULL;

	r = readlink_at(AT_FDCWD, exe, &target);
	if (r < 0 || stat(exe, &sb) < 0) {
		free(target);
		return error_set(e, r < 0 ? -r : errno, "pid %d: read its program file (%s)", pid, exe);
	}
	free(mm->exe);
	mm->exe = target;
	mm->exe_size = sb.st_size;
	mm->exe_mtime_ns = (int64_t)sb.st_mtim.tv_sec * 1000000000 + sb.st_mtim.tv_nsec;
	return 0;
}

/* A file on tmpfs that travels because somebody maps it shared is the same object in private mappings: the
 * destination has no such file before. */
static void map_travelling(const struct memory *m, const struct proc_vma *v, Ferry__Vma *out)
{
	if (out->kind != FERRY__VMA_KIND__VMA_FILE || v->shared)
		return;
	for (size_t i = 0; i < m->n_objects; i++) {
		const struct memory_object *o = m->objects[i];

		if (o->kind != FERRY__OBJECT_KIND__OBJECT_TMPFS || o->ino != v->ino ||
		    o->dev != makedev(v->dev_major, v->dev_minor))
			continue;
		out->kind = FERRY__VMA_KIND__VMA_OBJECT;
		out->object = o->id;
		*out->path = 0;
	}
}

/* The maps of @p as a new Mm. Flags come from @old where a VMA is unchanged. */
static int build_mm(struct capture *c, struct process *p, const struct proc_maps *maps,
		    const Ferry__Mm *old_mm, const struct mm_seen *old, Ferry__Mm **ret, int **ret_index,
		    struct error *e)
{
	Ferry__Mm *mm = xmalloc(sizeof(*mm));
	int r = 0;

	ferry__mm__init(mm);
	mm->exe = xstrdup("");
	mm->vmas = xcalloc(maps->n, sizeof(*mm->vmas));
	int *index = xcalloc(maps->n, sizeof(*index));
	size_t j = 0;

	for (size_t i = 0; i < maps->n && r >= 0; i++) {
		const struct proc_vma *v = &maps->v[i];

		index[i] = -1;
		if (!strcmp(v->path, "[vsyscall]"))
			continue;
		while (old && j < old->maps.n && old->maps.v[j].start < v->start)
			j++;
		bool known = old && j < old->maps.n && same_vma(v, &old->maps.v[j]) && old->index[j] >= 0 &&
			     v->vmflags == old->maps.v[j].vmflags && v->pkey == old->maps.v[j].pkey;

		if (known) {
			mm->vmas[mm->n_vmas] = vma_dup(old_mm->vmas[old->index[j]]);
			vma_look_at_file(process_living(p), v, mm->vmas[mm->n_vmas],
					 mm->n_vmas ? mm->vmas[mm->n_vmas - 1] : NULL);
		} else {
			r = vma_describe(c, process_living(p), v, &mm->vmas[mm->n_vmas], e);
		}
		if (r >= 0)
			index[i] = mm->n_vmas++;
	}
	for (size_t i = 0; i < maps->n && r >= 0; i++)
		if (index[i] >= 0)
			map_travelling(c->memory, &maps->v[i], mm->vmas[index[i]]);
	if (r >= 0)
		r = read_scalars(process_living(p), mm, e);
	if (r < 0) {
		ferry__mm__free_unpacked(mm, NULL);
		free(index);
		return r;
	}
	*ret = mm;
	*ret_index = index;
	return 0;
}

#define FLAGS_SHARE 20 /* of the time may go to reading flags: one part in so many */

static int read_flags(struct memory_process *mp, struct proc_maps *maps, struct error *e)
{
	uint64_t t0 = now_ns();
	int r = proc_maps_read(mp->living, true, maps, e);

	mp->flags_at = now_ns();
	mp->flags_ns = mp->flags_at - t0;
	return r;
}

static bool flags_are_due(const struct memory_process *mp)
{
	return mp->want_flags && now_ns() - mp->flags_at >= FLAGS_SHARE * mp->flags_ns;
}

/* Read maps, with flags where the last look cannot tell them. */
static int read_maps(const struct memory *m, struct memory_process *mp, const struct mm_seen *old, bool fresh,
		     struct proc_maps *maps, struct error *e)
{
	pid_t pid = mp->living;
	int r = fresh ? read_flags(mp, maps, e) : proc_maps_read(pid, false, maps, e);

	if (r >= 0 && !fresh && !inherit_flags(maps, old)) {
		proc_maps_deinit(maps);
		memset(maps, 0, sizeof(*maps));
		r = read_flags(mp, maps, e);
	}
	if (r >= 0 && maps->n == 0)
		r = error_say(e, ESRCH, "pid %d has no memory any more", pid);
	if (r >= 0)
		memory_clear_own_flags(m, mp, maps);
	return r;
}

static bool same_mm(const Ferry__Mm *a, const Ferry__Mm *b)
{
	size_t n = ferry__mm__get_packed_size(a);

	if (n != ferry__mm__get_packed_size(b))
		return false;
	cleanup_free uint8_t *x = xmalloc(n), *y = xmalloc(n);

	ferry__mm__pack(a, x);
	ferry__mm__pack(b, y);
	return !memcmp(x, y, n);
}

int memory_look(struct capture *c, struct process *p, bool *ret_exec, struct error *e)
{
	struct memory_process *mp = p->data;
	struct mm_seen *old = mp->seen, *seen = NULL;
	Ferry__Mm *mm = NULL;
	bool fresh = !old || flags_are_due(mp) || ((struct memory *)c->memory)->userfaults;
	int r = -ENOENT;

	*ret_exec = false;
	((struct memory *)c->memory)->tree = c->tree;
	mp->pidfd = p->pidfd;
	mp->living = process_living(p);
	mp->living_fd = process_living_fd(p);
	swapped_look(mp);
	/* A running target may unmap a file between the look at maps and the look at the file. */
	for (int i = 0; r == -ENOENT && i < LOOK_TRIES; i++) {
		error_clear(e);
		seen_free(seen);
		seen = xcalloc(1, sizeof(*seen));
		r = read_maps(c->memory, mp, old, fresh, &seen->maps, e);
		if (r >= 0)
			r = build_mm(c, p, &seen->maps, mp->mm, old, &mm, &seen->index, e);
	}
	if (r < 0) {
		seen_free(seen);
		return r;
	}
	*ret_exec = mp->mm && layout_is_other_program(mp->mm, mm);
	if (fresh && !*ret_exec) {
		r = huge_note(mp, &seen->maps);
		if (r < 0) {
			ferry__mm__free_unpacked(mm, NULL);
			seen_free(seen);
			return error_set(e, -r, "pid %d: find its huge pages", p->pid);
		}
	}
	huge_put(mp, mm);
	mp->want_flags = false;
	mp->mm_changed |= !mp->mm || !same_mm(mp->mm, mm);
	if (mp->mm) {
		memory_forget_replaced(mp, mp->mm, mm);
		ferry__mm__free_unpacked(mp->mm, NULL);
	}
	mp->mm = mm;
	seen_free(old);
	mp->seen = seen;
	return 0;
}

/* --- the kind ------------------------------------------------------------------------------------ */

struct mm_ask {
	unsigned brk, thp, probe, resident;
	int pkeys;
	size_t vec;
	bool probed;
};

static bool locks_memory(const Ferry__Mm *mm)
{
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (mm->vmas[i]->flags & FERRY__VMA_FLAG__VMA_LOCKED)
			return true;
	return false;
}

/* mlockall(MCL_FUTURE) is shown nowhere, but a page mapped under it is resident without being touched. */
static void ask_future_lock(struct batch *b, struct mm_ask *a)
{
	a->probed = true;
	a->vec = batch_reserve(b, 16);
	a->probe = batch_call(b, "map a probe page", SYS_mmap, ARG(0), ARG(PAGE_SIZE_BYTES),
			      ARG(PROT_READ | PROT_WRITE), ARG(MAP_PRIVATE | MAP_ANONYMOUS), ARG(-1), ARG(0));
	a->resident = batch_call(b, "mincore", SYS_mincore, ARG_RESULT(a->probe), ARG(PAGE_SIZE_BYTES),
				 ARG_DATA(a->vec));
	batch_call(b, "unmap the probe page", SYS_munmap, ARG_RESULT(a->probe), ARG(PAGE_SIZE_BYTES));
}

static int mm_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b, void **ret,
		  struct error *e)
{
	(void)c, (void)t, (void)e;
	struct mm_ask *a = xcalloc(1, sizeof(*a));

	a->brk = batch_call(b, "brk", SYS_brk, ARG(0));
	a->thp = batch_call(b, "get THP control", SYS_prctl, ARG(PR_GET_THP_DISABLE), ARG(0), ARG(0), ARG(0),
			    ARG(0));
	batch_accept_any(b, a->thp);
	a->pkeys = pkeys_ask(b);
	if (locks_memory(((struct memory_process *)p->data)->mm))
		ask_future_lock(b, a);
	*ret = a;
	return 0;
}

static Ferry__Mm *mm_dup(const Ferry__Mm *mm)
{
	size_t n = ferry__mm__get_packed_size(mm);
	cleanup_free uint8_t *buf = xmalloc(n);

	ferry__mm__pack(mm, buf);
	return ferry__mm__unpack(NULL, n, buf);
}

static int add_guard(void *ctx, const struct scan_region *g)
{
	Ferry__Mm *mm = ctx;

	mm->guards = xrealloc(mm->guards, (mm->n_guards + 2) * sizeof(*mm->guards));
	mm->guards[mm->n_guards++] = g->start;
	mm->guards[mm->n_guards++] = g->end;
	return 0;
}

static int take_guards(struct memory_process *mp, struct error *e)
{
	Ferry__Mm *mm = mp->mm;

	mm->n_guards = 0;
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];
		struct scan_args a = {.start = v->start,
				      .end = v->end,
				      .category_mask = SCAN_GUARD,
				      .return_mask = SCAN_GUARD};

		if (!(v->flags & FERRY__VMA_FLAG__VMA_GUARD))
			continue;
		int r = pagemap_scan(mp->pagemap_fd, &a, add_guard, mm);

		if (r < 0)
			return error_set(e, -r, "pid %d: find guard regions in 0x%llx-0x%llx", mp->pid,
					 (unsigned long long)v->start, (unsigned long long)v->end);
	}
	return 0;
}

static int mm_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		   struct error *e)
{
	(void)t;
	struct memory_process *mp = p->data;
	struct mm_ask *a = state;
	int r = take_guards(mp, e);

	if (r < 0)
		return r;

	if (a) {
		mp->mm->brk = batch_result(b, a->brk);
		int64_t thp = batch_result(b, a->thp);

		mp->mm->thp_disabled = thp > 0;
		mp->mm->thp_except_advised = thp > 0 && (thp & PR_THP_DISABLE_EXCEPT_ADVISED_);
		mp->mm->pkeys = pkeys_take(b, a->pkeys);
		if (a->probed && (*(uint8_t *)batch_data(b, a->vec) & 1))
			mp->mm->def_flags = MCL_FUTURE;
	}
	huge_put(mp, mp->mm);
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_MM, p->pid, 0, &mm_dup(mp->mm)->base);
	return 0;
}

static int mm_preflight(struct capture *c, struct process *p, struct error *e)
{
	(void)c;
	return memory_check_pins(p, e);
}

static int mm_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m, struct error *e)
{
	(void)tid;
	int x = pkeys_check((const Ferry__Mm *)m, pid, e);

	return x < 0 ? x : layout_check_files((const Ferry__Mm *)m, pid, r->snapshot->has_warm, e);
}

/* The numbers /proc shows, all at once and last: brk is only known at the freeze.  PR_SET_MM_MAP is the one
 * form that needs no CAP_SYS_RESOURCE.  The program file was set when the layout was first made. */
static int mm_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
		    struct batch *b, struct error *e)
{
	(void)r, (void)p, (void)t, (void)e;
	layout_set_numbers((const Ferry__Mm *)msg, b, -1);
	layout_finish((const Ferry__Mm *)msg, b);
	const Ferry__Mm *mm = (const Ferry__Mm *)msg;

	pkeys_build(mm, b);
	if (mm->thp_disabled)
		batch_call(b, "disable THP", SYS_prctl, ARG(PR_SET_THP_DISABLE), ARG(1),
			   ARG(mm->thp_except_advised ? PR_THP_DISABLE_EXCEPT_ADVISED_ : 0), ARG(0), ARG(0));
	return 0;
}

const struct state_kind kind_mm = {
	.name = "memory/mm",
	.type = FERRY__RECORD_TYPE__RECORD_MM,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__mm__descriptor,
	.preflight = mm_preflight,
	.ask = mm_ask,
	.take = mm_take,
	.check = mm_check,
	.build = mm_build,
};
