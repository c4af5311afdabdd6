/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading pages and putting them into the stream, as planned by pages.c.
 *
 * With a backend that is not always sure, a hash of every page that goes is kept, taken from the bytes that
 * go. In a round a page that is equal to what was sent last does not go again, whatever the backend says of
 * it; frozen, only pages the backend is unsure of are worth the hash.  With other backends only young pages
 * (pages.c) have one; and all that goes while the link is so slow that a hash costs less than a page
 * (stream_out_is_slow): a program that writes what was there already then costs nothing.
 * Then, too, a page that is equal to another one of its process which the other side is known to have goes as
 * a COPY of that; the other side checks what it finds there against a checksum.
 */
#include "state/memory/memory.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define PACE_STEP_NS 50000000ull
#include "track/calls.h"

/* Token bucket of --max-bandwidth: wait until what was sent, as it went over the wire, is allowed; but not if
 * somebody wants us to stop, or the other side has gone. */
static void pace(struct memory *m, const struct stream_out *out, uint64_t bytes)
{
	if (!m->max_bandwidth)
		return;
	uint64_t now = now_ns();

	if (!m->budget_start)
		m->budget_start = now;
	m->budget_bytes += bytes;
	uint64_t due = m->budget_start + m->budget_bytes * 1000 / m->max_bandwidth * 1000000;

	/* In steps: a signal that comes just before a wait would not interrupt it. */
	while (due > now && !job_aborted() && !stream_out_is_over(out, MIN(due - now, PACE_STEP_NS)))
		now = now_ns();
}

static bool is_zero(const void *page)
{
	const uint64_t *w = page;

	return !w[0] && !memcmp(w, w + 1, PAGE_SIZE_BYTES - 8);
}

struct sender {
	struct memory *m;
	struct memory_process *mp;
	struct stream_out *out;
	struct round_stats *st;
	bool zero_ok; /* a zero page needs no data (anonymous memory) */
	size_t unit;  /* bytes that are sent together: of one page */
	bool final;
	bool all;                   /* every page has a hash */
	bool compare;               /* what is equal to what was sent last does not go */
	bool slow;                  /* the same, as the link is slow */
	bool own;                   /* the process's own pages, all that are gone are forgotten */
	bool copies;                /* what is equal to another page goes as a copy */
	uint64_t twin;              /* of the page judged last */
	bool ages;                  /* what is read too soon is young */
	bool young;                 /* what is read now will be looked at again */
	struct page_set went, gone; /* to be added to and taken from mp->sent at the end of the round */
};

static int put_from(struct sender *s, uint64_t addr, uint64_t length, const void *data, uint32_t flags,
		    uint64_t from, struct error *e)
{
	struct page_run run = {.space = SPACE_PROCESS,
			       .id = s->mp->pid,
			       .addr = addr,
			       .length = length,
			       .flags = flags,
			       .from = from};

	return stream_put_pages(s->out, &run, data, e);
}

static int put(struct sender *s, uint64_t addr, uint64_t length, const void *data, uint32_t flags,
	       struct error *e)
{
	return put_from(s, addr, length, data, flags, 0, e);
}

enum verdict { DATA, ZERO, SAME, COPY };

/* Of each page once: it also remembers the content. */
static enum verdict judge(struct sender *s, uint64_t addr, const uint8_t *page)
{
	bool same = true;

	for (size_t i = 0; (s->compare || s->slow || s->young) && i < s->unit; i += PAGE_SIZE_BYTES)
		same &= page_hashes_update(s->mp->hashes, addr + i, page + i);
	if (same && (s->compare || s->slow))
		return SAME;
	if (s->zero_ok && is_zero(page))
		return ZERO;
	s->twin = s->copies ? page_hashes_twin(s->mp->hashes, addr) : 0;
	return s->twin ? COPY : DATA;
}

static int put_run(struct sender *s, uint64_t addr, uint64_t length, const uint8_t *data,
		   enum verdict verdict, uint64_t twin, struct error *e)
{
	uint64_t pages = length / PAGE_SIZE_BYTES;

	if (verdict == SAME) {
		s->st->same += pages;
		return 0;
	}
	s->st->pages += pages;
	if (verdict == COPY) {
		s->st->copied += pages;
		return put_from(s, addr, length, data, PAGE_RUN_COPY, twin, e);
	}
	if (verdict == DATA) {
		s->st->bytes += length;
		return put(s, addr, length, data, 0, e);
	}
	s->st->zero += pages;
	if (!page_set_overlaps(&s->mp->sent, addr, addr + length))
		return 0;
	return put(s, addr, length, NULL, PAGE_RUN_ZERO, e);
}

/* The page behind @length bytes at @addr, copied from @twin on: is it a copy of the next one there? A range
 * is not copied over itself. */
static bool copy_goes_on(const struct sender *s, uint64_t addr, uint64_t length, uint64_t twin)
{
	uint64_t all = length + s->unit;

	return s->twin == twin + length && (twin + all <= addr || addr + all <= twin);
}

/* Send what was read: runs of pages with content, and runs of zeros. */
static int put_buffer(struct sender *s, uint64_t addr, const uint8_t *b, size_t n, struct error *e)
{
	enum verdict run = DATA;
	size_t begin = 0;
	uint64_t twin = 0; /* of the page at @begin */
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i += s->unit) {
		enum verdict v = judge(s, addr + i, b + i);
		bool goes_on = v == run && (v != COPY || copy_goes_on(s, addr + begin, i - begin, twin));

		if (i > begin && !goes_on) {
			r = put_run(s, addr + begin, i - begin, b + begin, run, twin, e);
			begin = i;
		}
		if (i == begin)
			twin = s->twin;
		run = v;
	}
	if (s->young)
		young_add(s->mp, addr, addr + n);
	else if (!s->compare && !s->slow && s->mp->hashes)
		page_hashes_forget(s->mp->hashes, addr, addr + n);
	return r < 0 ? r : put_run(s, addr + begin, n - begin, b + begin, run, twin, e);
}

/* What was read with the target running must be that memory, and not another's that was there for a moment.
 */
static bool was_there(const struct sender *s, uint64_t start, uint64_t end)
{
	return s->final || !s->mp->session || backend_still_there(&s->m->backend, s->mp->session, start, end);
}

static int put_read(struct sender *s, uint64_t addr, const uint8_t *b, size_t n, struct error *e)
{
	if (was_there(s, addr, addr + n))
		return put_buffer(s, addr, b, n, e);
	page_set_add(&s->mp->unread, addr, addr + n);
	return 0;
}

/* Before what is read next. */
static void look_at_clock_and_link(struct sender *s)
{
	s->young = s->ages && young_is(s->mp, callers_gone(s->m, s->mp->collected));
	s->slow = s->mp->hashes && stream_out_is_slow(s->out);
	s->copies = s->slow && s->own && s->unit == PAGE_SIZE_BYTES && stream_out_wants_copies(s->out);
}

static int send_range(struct sender *s, uint64_t start, uint64_t end, struct error *e)
{
	while (start < end) {
		if (!s->final && job_aborted()) /* a large range at --max-bandwidth takes its time */
			return job_check_abort(e);
		size_t want = MIN(end - start, (uint64_t)STREAM_MAX_RUN);

		if (!s->final && s->unit == PAGE_SIZE_BYTES) {
			size_t left = swapped_leave(s->m, s->mp, start, &want);

			if (left) {
				page_set_add(&s->mp->unread, start, start + left);
				s->st->in_swap += left;
				start += left;
				continue;
			}
		}
		look_at_clock_and_link(s);
		ssize_t n = memory_read(s->mp, s->m->buffer, want, start);

		if (n < (ssize_t)s->unit) {
			int err = n < 0 ? errno : EIO;

			if (n < 0 && err == EINTR && !job_aborted())
				continue;
			if (s->final || job_aborted())
				return error_set(e, job_aborted() ? ECANCELED : err,
						 "pid %d: read page 0x%llx", s->mp->pid,
						 (unsigned long long)start);
			/* Unmapped under our hands, or not readable just now: it counts as written next time.
			 */
			page_set_add(&s->mp->unread, start, start + s->unit);
			start += s->unit;
			continue;
		}
		n &= ~(s->unit - 1);
		uint64_t before = stream_out_bytes(s->out);
		int r = put_read(s, start, s->m->buffer, n, e);

		if (r < 0)
			return r;
		if (!s->final)
			pace(s->m, s->out, stream_out_bytes(s->out) - before);
		start += n;
	}
	return 0;
}

/* As many of the ranges as can be read at once. Returns their number (0: the first has to be read alone). */
static ssize_t send_gathered(struct sender *s, const struct page_range *range, size_t n, struct error *e)
{
	const uint8_t *data = s->m->buffer;
	uint64_t before = stream_out_bytes(s->out);

	if (s->unit != PAGE_SIZE_BYTES)
		return 0;
	look_at_clock_and_link(s);
	n = memory_gather(s->m, s->mp, range, n);
	for (size_t i = 0; i < n; i++) {
		int r = put_read(s, range[i].start, data, range[i].end - range[i].start, e);

		if (r < 0)
			return r;
		data += range[i].end - range[i].start;
	}
	if (!s->final)
		pace(s->m, s->out, stream_out_bytes(s->out) - before);
	return (ssize_t)n;
}

static int send_set(struct sender *s, const struct page_set *set, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < set->n && r >= 0;) {
		ssize_t n = send_gathered(s, set->r + i, set->n - i, e);

		r = n ? (int)MIN(n, 0) : send_range(s, set->r[i].start, set->r[i].end, e);
		i += n > 0 ? (size_t)n : 1;
		if (r >= 0 && !s->final)
			r = job_check_abort(e);
	}
	return r;
}

static int send_drops(struct sender *s, const struct page_set *set, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < set->n && r >= 0; i++) {
		r = put(s, set->r[i].start, set->r[i].end - set->r[i].start, NULL, PAGE_RUN_DROP, e);
		s->st->dropped += (set->r[i].end - set->r[i].start) / PAGE_SIZE_BYTES;
		if (s->mp->hashes)
			page_hashes_forget(s->mp->hashes, set->r[i].start, set->r[i].end);
	}
	return r;
}

static int send_part(struct sender *s, const struct page_plan *plan, const struct page_set *part,
		     struct error *e)
{
	struct page_set go = PAGE_SET_INIT;

	page_set_and(&plan->go, part, &go);
	int r = send_set(s, &go, e);

	page_set_deinit(&go);
	return r;
}

static int send_plan(struct sender *s, const struct page_plan *plan, struct error *e)
{
	struct page_set rest = PAGE_SET_INIT, known = PAGE_SET_INIT;
	int r;

	s->zero_ok = !plan->private_file;
	s->unit = plan->unit;
	page_set_minus(&plan->go, &plan->unsure, &rest);
	page_set_minus(&rest, &plan->again, &known);
	s->ages = !s->final;
	s->compare = s->all && !s->final;
	r = send_set(s, &known, e);
	s->compare = s->mp->hashes;
	if (r >= 0)
		r = send_part(s, plan, &plan->unsure, e);
	s->ages = false; /* these were not protected anew */
	if (r >= 0)
		r = send_part(s, plan, &plan->again, e);
	if (r >= 0)
		r = send_drops(s, &plan->drop, e);
	/* Nothing to copy from any more, for the plans that follow too. */
	for (size_t i = 0; i < plan->drop.n; i++) {
		page_set_add(&s->gone, plan->drop.r[i].start, plan->drop.r[i].end);
		if (s->mp->hashes)
			page_hashes_forget(s->mp->hashes, plan->drop.r[i].start, plan->drop.r[i].end);
	}
	for (size_t i = 0; i < plan->go.n; i++)
		page_set_add(&s->went, plan->go.r[i].start, plan->go.r[i].end);
	page_set_deinit(&rest);
	page_set_deinit(&known);
	return r;
}

/* Pages the other side no longer has. */
static void forget(struct memory_process *mp, const struct page_set *set)
{
	page_set_remove(&mp->sent, set);
	young_forget(mp, set);
	for (size_t i = 0; mp->hashes && i < set->n; i++)
		page_hashes_forget(mp->hashes, set->r[i].start, set->r[i].end);
}

/* The other side may have an older content of them, so they stay in `sent`: a drop must be told. */
static void forget_unread(struct memory_process *mp)
{
	for (size_t i = 0; mp->hashes && i < mp->unread.n; i++)
		page_hashes_forget(mp->hashes, mp->unread.r[i].start, mp->unread.r[i].end);
}

static struct sender begin(struct memory *m, struct memory_process *mp, struct stream_out *out, bool final,
			   struct round_stats *st)
{
	bool all = memory_keeps_hashes(m) || mp->unseen_writes;

	if (!mp->hashes && (all || (mp->session && !final)))
		mp->hashes = page_hashes_new();
	return (struct sender){.m = m, .mp = mp, .out = out, .st = st, .final = final, .all = all};
}

int memory_send(struct memory *m, struct process *p, struct stream_out *out, bool final,
		struct round_stats *st, struct error *e)
{
	struct memory_process *mp = p->data;
	struct sender s = begin(m, mp, out, final, st);
	int r = send_drops(&s, &mp->unmapped, e);

	if (r >= 0)
		forget(mp, &mp->unmapped);
	if (final)
		swapped_make_room(m, mp);
	s.own = true;
	for (size_t i = 0; i < mp->n_plan && r >= 0; i++)
		r = send_plan(&s, &mp->plan[i], e);
	if (r >= 0) {
		forget(mp, &s.gone);
		page_set_merge(&mp->sent, &s.went);
		forget_unread(mp);
	}
	memory_plan_clear(mp);
	page_set_deinit(&s.went);
	page_set_deinit(&s.gone);
	return r;
}

int memory_send_part(struct memory *m, struct memory_process *mp, const struct page_set *part,
		     struct stream_out *out, bool final, struct round_stats *st, struct error *e)
{
	struct sender s = begin(m, mp, out, final, st);
	int r = 0;

	for (size_t i = 0; i < mp->n_plan && r >= 0; i++) {
		struct page_plan now = mp->plan[i];

		now.go = now.drop = (struct page_set)PAGE_SET_INIT;
		page_set_and(&mp->plan[i].go, part, &now.go);
		r = send_plan(&s, &now, e);
		page_set_remove(&mp->plan[i].go, &now.go);
		page_set_deinit(&now.go);
	}
	page_set_merge(&mp->sent, &s.went);
	forget_unread(mp);
	page_set_deinit(&s.went);
	return r;
}
