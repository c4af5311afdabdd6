/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory in rounds.
 *
 * Tracking is per process, shared memory is not.  A backend sees the stores through mappings that it follows.
 * It does not see write(2), fallocate and truncate of the file, nor stores through a mapping that came and
 * went between two looks, of a child that lived for a moment, or of a process outside of the tree.  None of
 * these leaves a trace that is both sure and cheap: a store to a page that was mapped for reading changes no
 * time stamp of the file; and the first store to a protected page after each round does, so that a changed
 * stat says nothing either.
 *
 * So the content decides.  A hash of every page that was sent is kept, and when the target is frozen every
 * page of the object is compared with it: what is equal is not sent, what is not was written, by whom and how
 * so ever. In rounds with the target running the mappings tell what to send; whether somebody else writes too
 * is found out by one comparison, and only if that was so are the next rounds compared as well.
 *
 * Holes are found with SEEK_DATA and never read: reading a hole of a mapping would fill it.
 */
#include "state/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/util.h"

/* Bytes read at a time: they are hashed while they are in the cache. */
#define CHUNK (256u << 10)
/* Rounds without a comparison after one that found nothing. */
#define REST 3
/* Less than this part of an object is looked at page by page. */
#define FEW 16

static uint64_t stamp(const struct stat *st)
{
	int64_t v[] = {st->st_mtim.tv_sec,  st->st_mtim.tv_nsec, st->st_ctim.tv_sec,
		       st->st_ctim.tv_nsec, st->st_size,         st->st_blocks};
	uint64_t h = XXH3_64bits(v, sizeof(v));

	return h ? h : 1;
}

/* What of @set has data, page by page: SEEK_HOLE would walk through all that follows. */
static int data_of(const struct memory_object *o, const struct page_set *set, struct page_set *ret,
		   struct error *e)
{
	for (size_t i = 0; i < set->n; i++)
		for (uint64_t at = set->r[i].start; at < MIN(set->r[i].end, o->size);) {
			off_t data = lseek(o->fd, (off_t)at, SEEK_DATA);

			if (data < 0 && errno == ENXIO)
				return 0;
			if (data < 0)
				return error_set(e, errno, "find data of shared memory object %s", o->name);
			at = (uint64_t)data & ~(PAGE_SIZE_BYTES - 1);
			if (at < set->r[i].end)
				page_set_add(ret, at, at + PAGE_SIZE_BYTES);
			at += PAGE_SIZE_BYTES;
		}
	return 0;
}

/* Data extents of the object inside [0, size), page aligned. */
static int data_extents(const struct memory_object *o, struct page_set *ret, struct error *e)
{
	off_t pos = 0;

	while ((uint64_t)pos < o->size) {
		off_t data = lseek(o->fd, pos, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			return 0;
		off_t hole = data < 0 ? -1 : lseek(o->fd, data, SEEK_HOLE);

		if (data >= 0 && hole < 0 && errno == ENXIO)
			return 0; /* cut off meanwhile, which the next look at the stamp tells */
		if (data < 0 || hole < 0)
			return error_set(e, errno, "find data of shared memory object %s", o->name);
		page_set_add(ret, data & ~(PAGE_SIZE_BYTES - 1), PAGE_ROUND_UP((uint64_t)hole));
		pos = hole;
	}
	return 0;
}

/* hugetlbfs tells nothing of holes, only how much is there; reading a hole does not fill it.  So if all is
 * there all of it goes, and else what is not zero: a page of zeros and a hole read the same. */
static int hugetlb_extents(struct memory *m, const struct memory_object *o, const struct stat *st,
			   struct page_set *ret, struct error *e)
{
	if ((uint64_t)st->st_blocks * 512 >= o->size) {
		page_set_add(ret, 0, o->size);
		return 0;
	}
	if (!st->st_blocks)
		return 0;
	for (uint64_t at = 0; at < o->size; at += o->huge_page_size) {
		ssize_t n = pread(o->fd, m->buffer, o->huge_page_size, at);
		const uint64_t *w = (const uint64_t *)m->buffer;

		if (n < 0)
			return error_set(e, errno, "read huge pages of %s at 0x%llx", o->name,
					 (unsigned long long)at);
		if (n > 8 && (w[0] || memcmp(w, w + 1, n - 8)))
			page_set_add(ret, at, at + o->huge_page_size);
	}
	return 0;
}

static int put_run(struct memory_object *o, struct stream_out *out, uint64_t start, uint64_t length,
		   const void *data, struct round_stats *st, struct error *e)
{
	struct page_run run = {.space = SPACE_OBJECT, .id = o->id, .addr = start, .length = length};

	st->pages += length / PAGE_SIZE_BYTES;
	st->bytes += length;
	return stream_put_pages(out, &run, data, e);
}

/* What was read, but for pages that are what was sent last. */
static int put_changed(struct memory *m, struct memory_object *o, struct stream_out *out, uint64_t start,
		       uint64_t length, struct round_stats *st, struct error *e)
{
	uint64_t begin = 0;
	int r = 0;

	for (uint64_t i = 0; i < length && r >= 0; i += PAGE_SIZE_BYTES) {
		if (!page_hashes_update(o->hashes, start + i, m->buffer + i))
			continue;
		st->same++;
		if (i > begin)
			r = put_run(o, out, start + begin, i - begin, m->buffer + begin, st, e);
		begin = i + PAGE_SIZE_BYTES;
	}
	if (r >= 0 && length > begin)
		r = put_run(o, out, start + begin, length - begin, m->buffer + begin, st, e);
	return r;
}

static int put_range(struct memory *m, struct memory_object *o, struct stream_out *out, uint64_t start,
		     uint64_t end, struct round_stats *st, struct error *e)
{
	while (start < end) {
		size_t want = MIN(end - start, (uint64_t)CHUNK);
		ssize_t n = pread(o->fd, m->buffer, want, start);

		if (n < 0)
			return error_set(e, errno, "read shared memory object %s at 0x%llx", o->name,
					 (unsigned long long)start);
		memset(m->buffer + n, 0, want - n); /* beyond the end of file, or truncated meanwhile */
		int r = put_changed(m, o, out, start, want, st, e);

		if (r < 0)
			return r;
		start += want;
	}
	return 0;
}

static int put_set(struct memory *m, struct memory_object *o, struct stream_out *out,
		   const struct page_set *set, struct round_stats *st, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < set->n && r >= 0; i++)
		r = put_range(m, o, out, set->r[i].start, set->r[i].end, st, e);
	return r;
}

/* Tell the other side that [.., ..) of @gone holds nothing any more. */
static int put_drops(struct memory_object *o, struct stream_out *out, const struct page_set *gone,
		     struct round_stats *st, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < gone->n && r >= 0; i++) {
		struct page_run run = {.space = SPACE_OBJECT,
				       .id = o->id,
				       .addr = gone->r[i].start,
				       .length = gone->r[i].end - gone->r[i].start,
				       .flags = PAGE_RUN_DROP};

		r = stream_put_pages(out, &run, NULL, e);
		st->dropped += run.length / PAGE_SIZE_BYTES;
		page_hashes_forget(o->hashes, run.addr, run.addr + run.length);
	}
	return r;
}

/* Nobody can write it any more. */
static bool is_constant(const struct memory_object *o)
{
	return (o->seals & F_SEAL_WRITE) && (o->seals & F_SEAL_SHRINK) && (o->seals & F_SEAL_GROW);
}

static void whole_counts(struct memory_object *o)
{
	struct page_set all = PAGE_SET_INIT;

	page_set_add(&all, 0, MAX(PAGE_ROUND_UP(o->size), o->sent.n ? o->sent.r[o->sent.n - 1].end : 0));
	page_set_minus(&all, &o->dirty, &o->unsure);
	page_set_merge(&o->dirty, &all);
	page_set_deinit(&all);
}

/* Look at the object: o->dirty is what may have changed, o->unsure the part of it that no mapping told. 1 if
 * there is any, 0, or -errno. */
static int find_dirty(struct memory_object *o, bool final, struct stat *sb, struct error *e)
{
	bool first = !o->stat_stamp, whole = first;

	if (fstat(o->fd, sb) < 0)
		return error_set(e, errno, "stat of shared memory object %s", o->name);
	uint64_t now = stamp(sb);

	if (final)
		whole |= !o->settled && !o->constant && !o->sure;
	else if (o->ready)
		whole = o->sure = true;
	else if (!o->sure && (now != o->stat_stamp || o->untracked))
		whole |= !o->rest;
	o->size = sb->st_size;
	o->stat_stamp = now;
	o->settled = final;
	o->untracked = false;
	if (o->rest && !whole)
		o->rest--;
	if (first)
		o->hashes = page_hashes_new();
	if (!whole && !o->dirty.n)
		return 0;
	int seals = fcntl(o->fd, F_GET_SEALS);

	o->seals = seals > 0 ? seals : 0;
	page_set_clear(&o->unsure);
	if (whole) {
		whole_counts(o);
		o->constant = is_constant(o);
	}
	return 1;
}

/* The dirty part of the object: what has data goes, what was sent and has none any more is dropped. */
int memory_object_changes(struct memory *m, struct memory_object *o, bool final, struct page_set *ret_go,
			  struct page_set *ret_gone, struct error *e)
{
	struct page_set data = PAGE_SET_INIT, hole = PAGE_SET_INIT;
	struct stat sb;
	int r = find_dirty(o, final, &sb, e);

	bool few = page_set_bytes(&o->dirty) < o->size / FEW;

	if (r > 0) {
		int x = o->huge_page_size ? hugetlb_extents(m, o, &sb, &data, e)
			: few             ? data_of(o, &o->dirty, &data, e)
					  : data_extents(o, &data, e);

		r = x < 0 ? x : r;
	}
	if (r > 0) {
		page_set_and(&o->dirty, &data, ret_go);
		page_set_minus(&o->dirty, &data, &hole);
		page_set_and(&hole, &o->sent, ret_gone);
	}
	page_set_deinit(&data);
	page_set_deinit(&hole);
	return r;
}

/* What was read too soon after its protection is read again when it is older, or for the last time. */
static void look_again(struct memory *m, struct memory_object *o, bool final, struct page_set *ret_again)
{
	if (!o->young.n || (!final && callers_gone(m, o->young_since) < o->young_since))
		return;
	page_set_minus(&o->young, &o->dirty, ret_again);
	page_set_merge(&o->dirty, ret_again);
	page_set_clear(&o->young);
}

/* What was protected anew in this round, of @go, is read too soon. */
static void note_young(struct memory *m, struct memory_object *o, const struct page_set *known,
		       const struct page_set *again)
{
	struct page_set young = PAGE_SET_INIT;

	if (callers_gone(m, o->collected) >= o->collected)
		return;
	page_set_minus(known, again, &young);
	page_set_merge(&o->young, &young);
	o->young_since = o->collected;
	page_set_deinit(&young);
}

/* What mappings told, and then the rest. */
static int send_changes(struct memory *m, struct memory_object *o, struct stream_out *out,
			const struct page_set *go, const struct page_set *gone, const struct page_set *again,
			struct round_stats *st, struct error *e)
{
	struct page_set known = PAGE_SET_INIT, doubt = PAGE_SET_INIT, lost = PAGE_SET_INIT;
	bool compared = o->unsure.n && o->sent.n;

	page_set_minus(go, &o->unsure, &known);
	page_set_and(go, &o->unsure, &doubt);
	page_set_and(gone, &o->unsure, &lost);
	note_young(m, o, &known, again);
	int r = put_set(m, o, out, &known, st, e);
	uint64_t before = st->pages;

	if (r >= 0)
		r = put_set(m, o, out, &doubt, st, e);
	if (r >= 0)
		r = put_drops(o, out, gone, st, e);
	if (r >= 0 && compared)
		o->rest = st->pages != before || lost.n ? 0 : REST;
	page_set_deinit(&known);
	page_set_deinit(&doubt);
	page_set_deinit(&lost);
	return r;
}

int memory_object_put(struct memory *m, struct memory_object *o, struct stream_out *out,
		      const struct page_set *set, struct round_stats *st, struct error *e)
{
	return put_set(m, o, out, set, st, e);
}

static int object_round(struct memory *m, struct memory_object *o, struct stream_out *out, bool final,
			struct round_stats *st, struct error *e)
{
	struct page_set go = PAGE_SET_INIT, gone = PAGE_SET_INIT, again = PAGE_SET_INIT;

	look_again(m, o, final, &again);
	int r = memory_object_changes(m, o, final, &go, &gone, e);
	bool changed = r > 0;
	uint64_t before = st->bytes;

	if (changed && final && m->leaves && memory_object_may_stay(m, o))
		r = memory_object_leave(m, o, &go, &again, e);
	if (changed && r >= 0)
		r = send_changes(m, o, out, &go, &gone, &again, st, e);
	if (!final && st->bytes != before && !memory_object_may_stay(m, o))
		st->object_bytes += st->bytes - before;
	if (changed && r >= 0) {
		page_set_remove(&o->sent, &gone);
		page_set_merge(&o->sent, &go);
		page_set_clear(&o->dirty);
		page_set_clear(&o->unsure);
	}
	page_set_deinit(&go);
	page_set_deinit(&gone);
	page_set_deinit(&again);
	return MIN(r, 0);
}

int memory_objects_round(struct memory *m, struct stream_out *out, bool final, struct round_stats *st,
			 struct error *e)
{
	if (!final || !m->asked) {
		memory_objects_ask(m, final);
		if (final)
			memory_objects_collect(m);
	}
	m->asked = final;
	for (size_t i = 0; i < m->n_objects; i++) {
		int r = object_round(m, m->objects[i], out, final, st, e);

		if (r < 0)
			return r;
	}
	return 0;
}

void memory_objects_frozen(struct memory *m)
{
	for (size_t i = 0; i < m->n_objects; i++)
		m->objects[i]->settled = false;
	m->asked = false;
}
