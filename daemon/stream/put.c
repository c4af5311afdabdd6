/* SPDX-License-Identifier: Apache-2.0 */
/* Putting records and page runs into a stream, whatever it goes to. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "proto/image.pb-c.h"
#include "stream/out.h"

#define DIRECT_RUN                                                                              \
	(256u << 10) /* from here on a copy into the packer costs more than a record of its own \
		      */

static struct wire_run *last_run(struct page_packer *p)
{
	return p->n ? &p->runs[p->n - 1] : NULL;
}

static void close_last(struct page_packer *p)
{
	struct wire_run *r = last_run(p);

	if (r && run_has_data(r->flags))
		r->checksum = wire_data_checksum(p->data + r->offset, run_padded(r->length));
}

static int pack_flush(struct stream_out *s, struct error *e)
{
	struct page_packer *p = &s->pack;

	if (!p->n)
		return 0;
	close_last(p);
	int rc = stream_emit_pages(s, p->runs, p->n, p->data, p->used, e);

	p->n = p->used = 0;
	return rc;
}

/* The next run goes on where the last one ends. A last run that was padded can't grow. */
static bool continues(const struct wire_run *last, const struct page_run *r)
{
	return last && !(r->flags & PAGE_RUN_COPY) && last->space == r->space && last->id == r->id &&
	       last->flags == r->flags && last->addr + last->length == r->addr &&
	       (!(r->flags & PAGE_RUN_SAME) || last->offset == r->from) &&
	       (!run_has_data(r->flags) || last->length % WIRE_PAGE == 0) &&
	       last->length + r->length > last->length;
}

static int pack_add(struct stream_out *s, const struct page_run *r, const void *data, struct error *e)
{
	struct page_packer *p = &s->pack;
	uint64_t padded = run_has_data(r->flags) ? run_padded(r->length) : 0;

	if (p->used + padded > STREAM_MAX_RUN || (p->n == WIRE_MAX_RUNS && !continues(last_run(p), r))) {
		int rc = pack_flush(s, e);

		if (rc < 0)
			return rc;
	}
	if (continues(last_run(p), r)) {
		last_run(p)->length += r->length;
	} else {
		close_last(p);
		p->runs[p->n++] = (struct wire_run){
			r->space, r->flags, r->id, r->addr, r->length, padded ? p->used : r->from, 0};
	}
	if (padded && data) {
		memcpy(p->data + p->used, data, r->length);
		memset(p->data + p->used + r->length, 0, padded - r->length);
		p->used += padded;
	}
	return 0;
}

static int put_direct(struct stream_out *s, const struct page_run *r, const void *data, struct error *e)
{
	struct wire_run w = {
		r->space, r->flags, r->id, r->addr, r->length, 0, wire_data_checksum(data, r->length)};
	int rc = pack_flush(s, e);

	return rc < 0 ? rc : stream_emit_pages(s, &w, 1, data, r->length, e);
}

static int put_copy(struct stream_out *s, const struct page_run *r, const void *data, struct error *e)
{
	if (!s->copies)
		return error_say(e, EINVAL, "a copy of pages in a stream whose reader does not know them");
	int rc = pack_add(s, r, NULL, e);

	if (rc == 0)
		last_run(&s->pack)->checksum = wire_data_checksum(data, r->length);
	return rc;
}

int stream_put_pages(struct stream_out *s, const struct page_run *run, const void *data, struct error *e)
{
	struct page_run r = *run;
	struct wire_fault f;

	if (!r.length)
		return 0;
	if (wire_check_run(&r, &f) < 0)
		return error_say(e, f.code, "%s", f.text);
	if (r.flags & PAGE_RUN_COPY)
		return put_copy(s, &r, data, e);
	if (!run_has_data(r.flags))
		return pack_add(s, &r, NULL, e);
	for (uint64_t left = run->length; left; left -= r.length) {
		r.length = MIN(left, STREAM_MAX_RUN);
		int rc = r.length >= DIRECT_RUN && r.length % WIRE_PAGE == 0 ? put_direct(s, &r, data, e)
									     : pack_add(s, &r, data, e);

		if (rc < 0)
			return rc;
		r.addr += r.length;
		data = (const uint8_t *)data + r.length;
	}
	return 0;
}

int stream_put(struct stream_out *s, uint32_t type, int32_t pid, int32_t tid, uint32_t flags,
	       const ProtobufCMessage *m, struct error *e)
{
	struct wire_record h = {.type = type, .flags = flags, .pid = pid, .tid = tid};
	size_t size = protobuf_c_message_get_packed_size(m);

	if (size > STREAM_MAX_RECORD)
		return error_say(e, EFBIG, "record %s of pid %d is of %zu bytes, at most %u are possible",
				 m->descriptor->name, pid, size, STREAM_MAX_RECORD);
	if (!type || (type >= FERRY__RECORD_TYPE__RECORD_TRAILER && type <= FERRY__RECORD_TYPE__RECORD_ACK) ||
	    flags & ~WIRE_FLAGS_KIND)
		return error_say(e, EINVAL, "record %s can't have type %u with flags %#x",
				 m->descriptor->name, type, flags);
	if (s->state && !s->state->socket && type >= WIRE_PEER_FIRST && type <= WIRE_PEER_LAST)
		return error_say(e, EINVAL, "record %s is of the peer protocol and has no place in an image",
				 m->descriptor->name);
	if (!s->state)
		return error_say(e, EINVAL, "record %s in a stream of pages only", m->descriptor->name);
	/* On a socket what was put first arrives first. */
	int rc = s->state == s->map ? pack_flush(s, e) : 0;

	if (rc < 0)
		return rc;
	if (size > s->scratch_cap || !s->scratch) {
		s->scratch_cap = MAX(size, 4096u);
		s->scratch = xrealloc(s->scratch, s->scratch_cap);
	}
	protobuf_c_message_pack(m, s->scratch);
	return record_out_put(s->state, &h, s->scratch, size, NULL, 0, e);
}

int stream_flush(struct stream_out *s, struct error *e)
{
	int rc = pack_flush(s, e);

	if (rc == 0)
		rc = record_out_flush(s->map, e);
	if (rc == 0 && s->state && s->state != s->map)
		rc = record_out_flush(s->state, e);
	return rc;
}

int stream_finish(struct stream_out *s, struct error *e)
{
	if (s->finished)
		return error_say(e, EINVAL, "the stream is finished already");
	int rc = pack_flush(s, e);

	if (rc == 0)
		rc = record_out_trailer(s->map, s->pages_file ? s->written : s->map->data_size, e);
	if (rc == 0 && s->state && s->state != s->map)
		rc = record_out_trailer(s->state, 0, e);
	if (rc == 0)
		rc = stream_flush(s, e);
	if (rc == 0 && s->page_server)
		rc = page_server_wait(s, e);
	if (rc == 0 && s->files.dirfd >= 0)
		rc = image_files_commit(&s->files, s->fast, e);
	if (rc == 0)
		s->finished = true;
	return rc;
}
