/* SPDX-License-Identifier: Apache-2.0 */
#include "compare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "procfs/pagemap.h"
#include "procfs/procfs.h"

static const char zero[PAGE_SIZE_BYTES];

__attribute__((format(printf, 2, 3))) static void differs(struct comparison *c, const char *fmt, ...)
{
	va_list ap;

	if (c->different++)
		return;
	va_start(ap, fmt);
	vsnprintf(c->text, c->size, fmt, ap);
	va_end(ap);
}

static void page_differs(struct comparison *c, const char *whose, uint64_t id, uint64_t addr,
			 const Ferry__Vma *v, const char *now, const char *want, bool copied)
{
	size_t i = 0;

	while (i < PAGE_SIZE_BYTES - 8 && now[i] == want[i])
		i++;
	i &= ~7ul;
	differs(c, "%s %llu page 0x%llx%s%s, %s the copy, byte %zu: %016llx and not %016llx", whose,
		(unsigned long long)id, (unsigned long long)addr, v ? " of " : "",
		v ? v->kind == FERRY__VMA_KIND__VMA_ANON ? "anonymous memory" : v->path : "",
		copied ? "in" : "not in", i, (unsigned long long)*(const uint64_t *)(now + i),
		(unsigned long long)*(const uint64_t *)(want + i));
}

/* What the file or object under a private mapping has there. */
static void below(const struct comparison *c, const Ferry__Vma *v, int file, uint64_t addr, char *page)
{
	uint64_t at = addr - v->start + v->offset;
	const void *p = NULL;

	memset(page, 0, PAGE_SIZE_BYTES);
	if (v->kind == FERRY__VMA_KIND__VMA_OBJECT)
		p = shadow_page(c->shadow, SPACE_OBJECT, v->object, at);
	if (p)
		memcpy(page, p, PAGE_SIZE_BYTES);
	else if (v->kind == FERRY__VMA_KIND__VMA_FILE && file >= 0 &&
		 pread(file, page, PAGE_SIZE_BYTES, (off_t)at) < 0)
		memset(page, 0, PAGE_SIZE_BYTES);
}

static int compare_vma(struct comparison *c, const struct memory_process *mp, const Ferry__Vma *v,
		       struct error *e)
{
	struct page_set look = PAGE_SET_INIT, one = PAGE_SET_INIT, mine = PAGE_SET_INIT;
	bool private_file = v->kind != FERRY__VMA_KIND__VMA_ANON;
	cleanup_close int file = private_file ? open(v->path, O_RDONLY | O_CLOEXEC) : -1;
	int r = pagemap_populated(mp->pagemap_fd, v->start, v->end, private_file, &look);

	page_set_add(&one, v->start, v->end);
	page_set_and(shadow_set(c->shadow, SPACE_PROCESS, (uint64_t)mp->pid), &one, &mine);
	page_set_merge(&look, &mine);
	for (size_t i = 0; i < look.n && r >= 0; i++)
		for (uint64_t a = look.r[i].start; a < look.r[i].end; a += PAGE_SIZE_BYTES) {
			const void *copy = shadow_page(c->shadow, SPACE_PROCESS, (uint64_t)mp->pid, a);
			char now[PAGE_SIZE_BYTES], want[PAGE_SIZE_BYTES];

			if (copy)
				memcpy(want, copy, sizeof(want));
			else
				below(c, v, file, a, want);
			c->compared++;
			if (pread(mp->mem_fd, now, sizeof(now), (off_t)a) != sizeof(now)) {
				if (copy) /* beyond the end of the file: nothing is there */
					differs(c, "pid %d page 0x%llx is in the copy and cannot be read",
						mp->pid, (unsigned long long)a);
				continue;
			}
			if (memcmp(now, want, sizeof(now)))
				page_differs(c, "pid", (uint64_t)mp->pid, a, v, now, want, copy);
		}
	page_set_deinit(&look);
	page_set_deinit(&one);
	page_set_deinit(&mine);
	return r < 0 ? error_set(e, -r, "pid %d: scan", mp->pid) : 0;
}

static bool is_kernels(const Ferry__Vma *v)
{
	return v->kind == FERRY__VMA_KIND__VMA_VDSO || v->kind == FERRY__VMA_KIND__VMA_VVAR ||
	       v->kind == FERRY__VMA_KIND__VMA_VVAR_VCLOCK;
}

/* The engine's idea of the layout, which may have been taken over from an earlier look. */
static int compare_layout(struct comparison *c, const struct memory_process *mp, struct error *e)
{
	struct proc_maps m;
	int r = proc_maps_read(mp->pid, false, &m, e);
	size_t n = 0;

	if (r < 0)
		return r;
	for (size_t i = 0; i < m.n; i++) {
		const Ferry__Vma *v = n < mp->mm->n_vmas ? mp->mm->vmas[n] : NULL;

		if (!strcmp(m.v[i].path, "[vsyscall]"))
			continue;
		n++;
		if (!v || v->start != m.v[i].start || v->end != m.v[i].end || v->shared != m.v[i].shared ||
		    v->offset != m.v[i].offset)
			differs(c, "pid %d: mapping 0x%llx is not what the engine holds it for", mp->pid,
				(unsigned long long)m.v[i].start);
	}
	proc_maps_deinit(&m);
	return 0;
}

int compare_processes(struct comparison *c, struct session *s, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		const struct memory_process *mp = s->tree->procs[i]->data;

		if (!mp || !mp->mm)
			continue;
		r = compare_layout(c, mp, e);
		for (size_t k = 0; k < mp->mm->n_vmas && r >= 0; k++) {
			const Ferry__Vma *v = mp->mm->vmas[k];

			if (!v->shared && !is_kernels(v))
				r = compare_vma(c, mp, v, e);
		}
	}
	return r;
}

static int compare_object(struct comparison *c, const struct memory_object *o, struct error *e)
{
	const struct page_set *mine = shadow_set(c->shadow, SPACE_OBJECT, o->id);
	struct stat st;

	if (fstat(o->fd, &st) < 0)
		return error_set(e, errno, "stat of %s", o->name);
	if ((uint64_t)st.st_size != o->size)
		differs(c, "object %s has %lld bytes, not %llu", o->name, (long long)st.st_size,
			(unsigned long long)o->size);
	for (uint64_t a = 0; a < PAGE_ROUND_UP((uint64_t)st.st_size); a += PAGE_SIZE_BYTES) {
		const char *copy =
			page_set_has(mine, a) ? shadow_page(c->shadow, SPACE_OBJECT, o->id, a) : NULL;
		char now[PAGE_SIZE_BYTES] = {0};
		off_t data = lseek(o->fd, (off_t)a, SEEK_DATA);

		if (data < 0 && errno == EINVAL) /* huge pages of the pool: reading does not fill them */
			data = (off_t)a;
		/* A hole is not read: that could fill it. */
		if (data >= 0 && (uint64_t)data < a + PAGE_SIZE_BYTES &&
		    pread(o->fd, now, sizeof(now), (off_t)a) < 0)
			return error_set(e, errno, "read %s", o->name);
		size_t n = MIN(PAGE_SIZE_BYTES, (uint64_t)st.st_size - a);

		c->compared++;
		if (memcmp(now, copy ? copy : zero, n))
			page_differs(c, o->name, o->id, a, NULL, now, copy ? copy : zero, copy);
	}
	return 0;
}

int compare_objects(struct comparison *c, struct session *s, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->memory->n_objects && r >= 0; i++)
		r = compare_object(c, s->memory->objects[i], e);
	return r;
}

int stress_last_pages(struct session *s, struct stream_out *out, struct error *e)
{
	struct round_stats st = {0};

	int r = session_collect_all(s, SESSION_FROZEN, e);

	return r < 0 ? r : session_send_all(s, out, false, true, &st, e);
}
