/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the pool of huge pages (hugetlbfs, MAP_HUGETLB, memfd with MFD_HUGETLB).
 *
 * Its page is 2 MiB everywhere: for tracking, in the stream, and when it is put in place.  A mapping reserves
 * its pages when it is made, so whether the pool is large enough is known before anything is sent.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define HUGETLBFS_MAGIC_ 0x958458f6
#define POOL             "/sys/kernel/mm/hugepages/hugepages-2048kB"

int hugetlb_page_size(int fd, uint64_t *ret, struct error *e)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return error_set(e, errno, "statfs of mapped memory");
	*ret = (uint64_t)fs.f_type == HUGETLBFS_MAGIC_ ? (uint64_t)fs.f_bsize : 0;
	if (*ret && *ret != HUGE_PAGE_BYTES)
		return error_say(e, ENOTSUP,
				 "its huge pages are of %llu MiB: only those of 2 MiB can be moved, a larger "
				 "one would "
				 "hold up the program for as long as it takes to send it",
				 (unsigned long long)*ret >> 20);
	return 0;
}

bool hugetlb_is_private(const Ferry__Vma *v)
{
	return (v->flags & FERRY__VMA_FLAG__VMA_HUGETLB) && !v->shared;
}

static uint64_t pool_number(const char *name)
{
	cleanup_free char *path = xasprintf(POOL "/%s", name), *text = NULL;

	return read_file(path, &text) < 0 ? 0 : strtoull(text, NULL, 10);
}

static uint64_t reserved_by(const Ferry__Mm *mm)
{
	uint64_t n = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];

		if (hugetlb_is_private(v) && !(v->flags & FERRY__VMA_FLAG__VMA_NORESERVE))
			n += (v->end - v->start) / HUGE_PAGE_BYTES;
	}
	return n;
}

static bool is_mapped_shared(const struct snapshot *s, uint64_t object)
{
	for (size_t i = 0; i < s->n; i++) {
		const Ferry__Mm *mm = (const Ferry__Mm *)s->r[i].message;

		if (s->r[i].type != FERRY__RECORD_TYPE__RECORD_MM)
			continue;
		for (size_t j = 0; j < mm->n_vmas; j++)
			if (mm->vmas[j]->shared && mm->vmas[j]->object == object)
				return true;
	}
	return false;
}

int hugetlb_check_free(const struct snapshot *s, struct error *e)
{
	uint64_t need = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct snapshot_record *r = &s->r[i];

		if (r->type == FERRY__RECORD_TYPE__RECORD_MM)
			need += reserved_by((const Ferry__Mm *)r->message);
		if (r->type != FERRY__RECORD_TYPE__RECORD_OBJECTS)
			continue;
		const Ferry__Objects *os = (const Ferry__Objects *)r->message;

		for (size_t j = 0; j < os->n_objects; j++) {
			const Ferry__Object *o = os->objects[j];

			if (o->huge_page_size)
				need += (is_mapped_shared(s, o->id) ? o->size : o->huge_bytes) /
					HUGE_PAGE_BYTES;
		}
	}
	if (!need)
		return 0;
	uint64_t free = pool_number("free_hugepages"), taken = pool_number("resv_hugepages");
	uint64_t more = pool_number("nr_overcommit_hugepages"), used = pool_number("surplus_hugepages");
	uint64_t have = (free > taken ? free - taken : 0) + (more > used ? more - used : 0);

	if (need <= have)
		return 0;
	return error_say(e, ENOMEM,
			 "the program needs %llu huge pages of 2 MiB, and %llu are free here: raise "
			 "/proc/sys/vm/nr_hugepages",
			 (unsigned long long)need, (unsigned long long)have);
}
