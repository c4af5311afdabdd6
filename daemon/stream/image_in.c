/* SPDX-License-Identifier: Apache-2.0 */
/* Images as a stream: everything but page data is checked when they are opened; page data when they are read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "proto/image.pb-c.h"
#include "stream/image_files.h"
#include "stream/in.h"

#define READ_GAP (128u << 10) /* unwanted bytes between two runs that cost less than another read */

static bool is_null_id(const uint8_t id[16])
{
	static const uint8_t null[16];

	return memcmp(id, null, sizeof(null)) == 0;
}

/* --- opening ---------------------------------------------------------------------------------------------
 */

static int check_state_type(const struct record_in *in, struct error *e)
{
	switch (in->h.type) {
	case FERRY__RECORD_TYPE__RECORD_PAGES:
	case FERRY__RECORD_TYPE__RECORD_ACK:
		return record_in_fail(in, EBADMSG, "has no place in this file", e);
	default:
		return 0;
	}
}

/* Read state.img through once, then stand at its first state record. */
static int open_state(struct stream_in *s, int dirfd, struct error *e)
{
	int rc = image_open_file(dirfd, IMAGE_STATE, &s->state_fd, e);

	if (rc < 0)
		return rc;
	record_in_init(&s->in, s->state_fd, STATE_IMG, false);
	rc = record_in_header(&s->in, WIRE_STATE, &s->header, e);
	if (rc < 0)
		return rc;
	while ((rc = record_in_next(&s->in, e)) > 0) {
		rc = check_state_type(&s->in, e);
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	if (lseek(s->state_fd, 0, SEEK_SET) < 0)
		return error_set(e, errno, "%s: seek", STATE_IMG);
	record_in_deinit(&s->in);
	record_in_init(&s->in, s->state_fd, STATE_IMG, false);
	return record_in_header(&s->in, WIRE_STATE, &s->header, e);
}

static int read_pagemap(struct stream_in *s, struct record_in *in, struct stream_header *h, struct error *e)
{
	cleanup_free struct wire_run *runs = xcalloc(WIRE_MAX_RUNS, sizeof(*runs));
	size_t n;
	int rc = record_in_header(in, WIRE_PAGEMAP, h, e);

	if (rc < 0)
		return rc;
	while ((rc = record_in_next(in, e)) > 0) {
		if (in->h.type >= WIRE_OPTIONAL)
			continue;
		if (in->h.type != FERRY__RECORD_TYPE__RECORD_PAGES)
			return record_in_fail(in, EBADMSG, "has no place in this file", e);
		rc = record_in_pages(in, runs, &n, NULL, e);
		for (size_t i = 0; i < n && rc == 0; i++)
			rc = plan_add(&s->plan, &runs[i], s->n_dirs - 1, e);
		if (rc < 0)
			return rc;
	}
	return rc;
}

static int open_pages(struct stream_in *s, struct image_dir *d, int dirfd, struct error *e)
{
	struct stat st;

	if ((s->flags & IMAGE_PARTIAL) && faccessat(dirfd, PAGES_IMG, F_OK, 0) < 0 && errno == ENOENT)
		return 0;
	int rc = image_open_file(dirfd, IMAGE_PAGES, &d->pages_fd, e);

	if (rc < 0)
		return rc;
	if (fstat(d->pages_fd, &st) < 0)
		return error_set(e, errno, PAGES_IMG);
	if ((uint64_t)st.st_size != d->pages_size)
		return error_say(e, EBADMSG, "%s %s: %ju bytes, but %s tells of %ju", PAGES_IMG,
				 (uint64_t)st.st_size < d->pages_size ? "is cut short" : "is too long",
				 (uintmax_t)st.st_size, PAGEMAP_IMG, (uintmax_t)d->pages_size);
	posix_fadvise(d->pages_fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

/* pagemap.img and pages.img of the last of s->dirs. */
static int open_memory(struct stream_in *s, int dirfd, struct stream_header *h, struct error *e)
{
	struct image_dir *d = &s->dirs[s->n_dirs - 1];
	size_t first = s->plan.n_runs;
	struct record_in in;
	cleanup_close int fd = -1;
	int rc = image_open_file(dirfd, IMAGE_PAGEMAP, &fd, e);

	if (rc < 0)
		return rc;
	record_in_init(&in, fd, PAGEMAP_IMG, false);
	rc = read_pagemap(s, &in, h, e);
	d->pages_size = in.trailer.data_size;
	record_in_deinit(&in);
	for (size_t i = first; i < s->plan.n_runs && rc == 0; i++) {
		const struct wire_run *r = &s->plan.runs[i].run;

		if (run_has_data(r->flags) && r->offset + run_padded(r->length) > d->pages_size)
			rc = error_say(e, EBADMSG, "%s: data of %#jx are at byte %#jx, beyond the end of %s",
				       PAGEMAP_IMG, (uintmax_t)r->addr, (uintmax_t)r->offset, PAGES_IMG);
	}
	return rc < 0 ? rc : open_pages(s, d, dirfd, e);
}

static int add_dir(struct stream_in *s, int dirfd, const char *name, struct error *e)
{
	struct stat st;

	if (s->n_dirs == STREAM_MAX_CHAIN)
		return error_say(e, ELOOP, "more than %u images in a chain", STREAM_MAX_CHAIN);
	if (fstatat(dirfd, ".", &st, 0) < 0)
		return error_set(e, errno, "image directory %s", name);
	for (size_t i = 0; i < s->n_dirs; i++)
		if (s->dirs[i].dev == st.st_dev && s->dirs[i].ino == st.st_ino)
			return error_say(e, ELOOP, "image directory %s is its own ancestor", name);
	s->dirs = xrealloc(s->dirs, (s->n_dirs + 1) * sizeof(*s->dirs));
	s->dirs[s->n_dirs++] = (struct image_dir){.pages_fd = -1,
						  .name = *name ? xasprintf("%s/", name) : xstrdup(""),
						  .dev = st.st_dev,
						  .ino = st.st_ino};
	return 0;
}

static int open_parent_image(struct stream_in *s, int dirfd, const struct stream_header *child,
			     struct stream_header *h, struct error *e)
{
	struct stream_header state;
	int rc = add_dir(s, dirfd, child->parent, e);

	if (rc < 0)
		return rc;
	rc = open_memory(s, dirfd, h, e);
	if (rc < 0)
		return error_prefix(e, "parent image %s", child->parent);
	if (!is_null_id(child->parent_id) && memcmp(child->parent_id, h->id, sizeof(h->id)) != 0)
		return error_say(e, EBADMSG,
				 "parent image %s is not the one this image was made on: "
				 "something else was written there since",
				 child->parent);
	if (faccessat(dirfd, STATE_IMG, F_OK, 0) < 0)
		return 0;
	rc = image_read_header(dirfd, IMAGE_STATE, &state, e);
	if (rc == 0 && memcmp(state.id, h->id, sizeof(h->id)) != 0)
		rc = error_say(e, EBADMSG, "%s and %s are not of the same image", STATE_IMG, PAGEMAP_IMG);
	return rc < 0 ? error_prefix(e, "parent image %s", child->parent) : 0;
}

static int open_chain(struct stream_in *s, int dirfd, const struct stream_header *newest, struct error *e)
{
	cleanup_free struct stream_header *child = xmemdup(newest, sizeof(*newest));
	cleanup_close int at = -1;

	while (*child->parent) {
		struct stream_header h;
		cleanup_close int fd = -1;
		int rc = image_open_parent(at < 0 ? dirfd : at, child->parent, &fd, e);

		if (rc == 0)
			rc = open_parent_image(s, fd, child, &h, e);
		if (rc < 0)
			return rc;
		*child = h;
		if (at >= 0)
			close(at);
		at = TAKE_FD(fd);
	}
	return 0;
}

static bool has_file(int dirfd, enum image_file f)
{
	return faccessat(dirfd, image_file_name(f), F_OK, 0) == 0 || errno != ENOENT;
}

static int open_image(struct stream_in *s, int dirfd, struct error *e)
{
	bool partial = s->flags & IMAGE_PARTIAL, state = has_file(dirfd, IMAGE_STATE);
	bool memory = has_file(dirfd, IMAGE_PAGEMAP);
	struct stream_header h;
	int rc = add_dir(s, dirfd, "", e);

	if (rc < 0)
		return rc;
	if (!state && !(partial && memory))
		return error_say(e, ENOENT, "no image in this directory: %s is missing%s", STATE_IMG,
				 memory ? " (only pages are here)" : "");
	rc = state ? open_state(s, dirfd, e) : 0;
	if (rc < 0)
		return rc;
	if (!memory && partial)
		return 0;
	if (!memory && (s->header.flags & WIRE_PAGES_ELSEWHERE))
		return error_say(
			e, ENOENT,
			"the pages of this image went to a page server: copy %s and %s from there to "
			"this directory",
			PAGEMAP_IMG, PAGES_IMG);
	rc = open_memory(s, dirfd, &h, e);
	if (rc < 0)
		return rc;
	s->has_memory = true;
	if (state && memcmp(h.id, s->header.id, sizeof(h.id)) != 0)
		return error_say(e, EBADMSG, "%s and %s are not of the same image%s", STATE_IMG, PAGEMAP_IMG,
				 s->header.flags & WIRE_PAGES_ELSEWHERE ? ": its pages went to a page server"
									: "");
	if (!state)
		s->header = h;
	return s->flags & IMAGE_CHAIN ? open_chain(s, dirfd, &h, e) : 0;
}

int image_in_open(struct stream_in **ret, int dirfd, unsigned flags, struct error *e)
{
	struct stream_in *s = stream_in_new(e);

	if (!s)
		return -ENOMEM;
	s->flags = flags;
	int rc = open_image(s, dirfd, e);

	if (rc == 0)
		rc = flags & IMAGE_CHAIN ? plan_newest(&s->plan, e) : plan_all(&s->plan, e);
	if (rc < 0)
		stream_in_free(s);
	else
		*ret = s;
	return rc;
}

/* --- reading ---------------------------------------------------------------------------------------------
 */

/* Fill the window from the piece at hand on, as far as the next pieces lie close together. */
static int load_window(struct stream_in *s, const struct plan_run *first, struct error *e)
{
	const struct image_dir *d = &s->dirs[first->dir];
	uint64_t start = first->run.offset, end = start + run_padded(first->run.length);

	for (size_t i = s->next_piece; i < s->plan.n_pieces; i++) {
		const struct plan_run *p = &s->plan.runs[s->plan.pieces[i].run];
		uint64_t p_end = p->run.offset + run_padded(p->run.length);

		if (!run_has_data(p->run.flags) || s->plan.pieces[i].kind != PIECE_RUN)
			continue;
		if (p->dir != first->dir || p->run.offset < start || p->run.offset > end + READ_GAP ||
		    p_end - start > STREAM_MAX_RUN)
			break;
		end = MAX(end, p_end);
	}
	s->checked_run = 0;
	s->window_end = 0;
	int rc = pread_full(d->pages_fd, s->data, end - start, start);

	if (rc == -EPIPE)
		return error_say(e, EBADMSG, "%s%s is cut short: it was truncated while it was read", d->name,
				 PAGES_IMG);
	if (rc == -EINTR)
		return error_say(e, ECANCELED, "%s%s: cancelled", d->name, PAGES_IMG);
	if (rc < 0)
		return error_set(e, -rc, "%s%s: read at byte %ju", d->name, PAGES_IMG, (uintmax_t)start);
	s->window_dir = first->dir;
	s->window_start = start;
	s->window_end = end;
	return 0;
}

/* Data of a run, whole and checked, in the window. */
int image_in_run_data(struct stream_in *s, size_t run, const uint8_t **ret, struct error *e)
{
	const struct plan_run *p = &s->plan.runs[run];
	const struct wire_run *r = &p->run;
	uint64_t size = run_padded(r->length);

	if (p->dir != s->window_dir || r->offset < s->window_start || r->offset + size > s->window_end) {
		int rc = load_window(s, p, e);

		if (rc < 0)
			return rc;
	}
	const uint8_t *data = s->data + (r->offset - s->window_start);

	if (s->checked_run != run + 1 && wire_data_checksum(data, size) != r->checksum)
		return error_say(
			e, EBADMSG,
			"%s%s: page data at byte %ju: corrupt (checksum): %ju bytes for %#jx of %s %ju",
			s->dirs[p->dir].name, PAGES_IMG, (uintmax_t)r->offset, (uintmax_t)r->length,
			(uintmax_t)r->addr, r->space == SPACE_PROCESS ? "process" : "object",
			(uintmax_t)r->id);
	s->checked_run = run + 1;
	*ret = data;
	return 0;
}

static int next_piece(struct stream_in *s, struct record *ret, struct error *e)
{
	const struct plan_piece *p = &s->plan.pieces[s->next_piece];
	const struct wire_run *r = &s->plan.runs[p->run].run;
	const uint8_t *data = NULL;

	stream_in_run(r, ret);
	ret->run.id = p->id;
	ret->run.addr = p->addr;
	ret->run.length = p->length;
	ret->run.from = p->from;
	if (p->kind != PIECE_RUN)
		ret->run.flags = p->kind == PIECE_SAME ? PAGE_RUN_SAME : PAGE_RUN_DROP;
	if (p->kind == PIECE_RUN && run_has_data(r->flags) && !(s->flags & IMAGE_NO_DATA)) {
		int rc = image_in_run_data(s, p->run, &data, e);

		if (rc < 0)
			return rc;
		ret->data = data + (p->addr - r->addr);
	}
	s->next_piece++;
	return 1;
}

/* The order of the pieces: as the caller wants to make processes, or as they lie. */
static int plan_order(struct stream_in *s, struct error *e)
{
	int rc = s->before_pages ? s->before_pages(s->before_ctx, s, e) : 0;

	if (rc == 0 && !s->planned && (s->flags & IMAGE_CHAIN))
		pieces_sort_for_reading(s->plan.pieces, s->plan.n_pieces);
	s->planned = true;
	return rc;
}

int image_in_get(struct stream_in *s, struct record *ret, struct error *e)
{
	int rc = 0;

	while (s->state_fd >= 0 && (rc = record_in_next(&s->in, e)) > 0) {
		if (!wire_type_name(s->in.h.type))
			continue;
		stream_in_state(s, ret);
		return 1;
	}
	if (rc == 0 && !s->planned)
		rc = plan_order(s, e);
	if (rc < 0 || s->next_piece == s->plan.n_pieces)
		return rc;
	return next_piece(s, ret, e);
}

void stream_in_before_pages(struct stream_in *s, int (*fn)(void *ctx, struct stream_in *s, struct error *e),
			    void *ctx)
{
	s->before_pages = fn;
	s->before_ctx = ctx;
}

int stream_in_share(struct stream_in *s, const struct stream_kin *kin, size_t n, struct error *e)
{
	if (s->socket || !(s->flags & IMAGE_CHAIN) || s->next_piece)
		return error_say(e, EINVAL, "the order of pages of this stream is given");
	s->planned = true;
	return plan_share(&s->plan, kin, n, e);
}

void image_in_deinit(struct stream_in *s)
{
	for (size_t i = 0; i < s->n_dirs; i++) {
		if (s->dirs[i].pages_fd >= 0)
			close(s->dirs[i].pages_fd);
		free(s->dirs[i].name);
	}
	free(s->dirs);
	plan_deinit(&s->plan);
	if (s->state_fd >= 0)
		close(s->state_fd);
}
