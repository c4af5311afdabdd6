/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/records.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "proto/image.pb-c.h"

#define IN_BUFFER (256u << 10)

void record_in_init(struct record_in *in, int fd, const char *name, bool socket)
{
	*in = (struct record_in){.fd = fd, .name = xstrdup(name), .socket = socket};
	if (!socket) {
		in->cap = IN_BUFFER;
		in->buf = xmalloc(in->cap);
	}
}

void record_in_init_memory(struct record_in *in, const void *bytes, size_t size, bool socket)
{
	*in = (struct record_in){.fd = -1, .name = xstrdup("memory"), .socket = socket};
	in->buf = xmemdup(bytes, size);
	in->cap = in->end = size;
}

void record_in_deinit(struct record_in *in)
{
	free(in->name);
	free(in->buf);
	free(in->payload);
	free(in->packed);
	codec_state_free(in->codec);
	*in = (struct record_in){.fd = -1};
}

int record_in_fail(const struct record_in *in, int code, const char *text, struct error *e)
{
	const char *type = wire_type_name(in->h.type);
	char number[32] = "";

	if (!type)
		snprintf(number, sizeof(number), "type %u", in->h.type);
	return error_say(e, code, "%s: record %ju (%s) at byte %ju: %s", in->name, (uintmax_t)in->index,
			 type ? type : number, (uintmax_t)in->start, text);
}

static int cut_short(const struct record_in *in, bool between, struct error *e)
{
	if (in->socket && between)
		return error_say(e, EPIPE,
				 "%s: closed by the peer in the middle of a session (after %ju bytes)",
				 in->name, (uintmax_t)in->offset);
	return error_say(e, EBADMSG,
			 "%s is cut short: it ends at byte %ju, in the record that begins at byte %ju",
			 in->name, (uintmax_t)in->offset, (uintmax_t)in->start);
}

static int read_error(const struct record_in *in, int code, struct error *e)
{
	if (code == EINTR)
		return error_say(e, ECANCELED, "%s: cancelled", in->name);
	if (in->socket && code == EAGAIN)
		return error_say(e, ETIMEDOUT, "%s: nothing came from the peer (timed out)", in->name);
	return error_set(e, code, "%s: read at byte %ju", in->name, (uintmax_t)in->offset);
}

/* One read, at most @n bytes: 0 at the end. */
static ssize_t read_some(struct record_in *in, void *p, size_t n)
{
	if (in->fd < 0)
		return 0;
	for (;;) {
		ssize_t r = in->socket ? recv(in->fd, p, n, MSG_WAITALL) : read(in->fd, p, n);

		if (r >= 0)
			return r;
		if (errno != EINTR || job_aborted())
			return -errno;
	}
}

/* Exactly @n bytes. @between: the end is at the border of two records if it comes at once. */
static int read_bytes(struct record_in *in, void *p, size_t n, bool between, struct error *e)
{
	uint8_t *to = p;

	while (n) {
		ssize_t r;

		if (in->pos < in->end) {
			r = MIN(n, in->end - in->pos);
			memcpy(to, in->buf + in->pos, r);
			in->pos += r;
		} else if (in->socket || in->fd < 0) {
			r = read_some(in, to, n);
		} else {
			r = read_some(in, in->buf, in->cap);
			in->pos = 0;
			in->end = r > 0 ? r : 0;
			if (r > 0)
				continue;
		}
		if (r < 0)
			return read_error(in, -r, e);
		if (r == 0)
			return cut_short(in, between && to == p, e);
		to += r;
		n -= r;
		in->offset += r;
	}
	return 0;
}

static int check_type(const struct record_in *in, struct error *e)
{
	uint32_t type = in->h.type;

	if (type >= WIRE_OPTIONAL)
		return 0;
	if (!wire_type_name(type))
		return record_in_fail(in, EPROTONOSUPPORT, "unknown type; made by a newer ferry?", e);
	if (!in->socket && type >= WIRE_PEER_FIRST && type <= WIRE_PEER_LAST)
		return record_in_fail(in, EBADMSG, "a record of the peer protocol in an image", e);
	return 0;
}

static int finish(struct record_in *in, struct error *e)
{
	struct wire_fault f;
	uint8_t byte;

	if (wire_decode_trailer(in->payload, in->h.length, &in->trailer, &f) < 0)
		return record_in_fail(in, f.code, f.text, e);
	if (in->trailer.records != in->records || in->trailer.running != in->running)
		return record_in_fail(in, EBADMSG, "the trailer does not match the records before it", e);
	if (in->socket && in->trailer.data_size != in->data_size)
		return record_in_fail(in, EBADMSG, "the trailer does not match the page data before it", e);
	if (!in->socket && (in->pos < in->end || read_some(in, &byte, 1) > 0))
		return error_say(e, EBADMSG, "%s: bytes after the trailer, from byte %ju", in->name,
				 (uintmax_t)in->offset);
	in->done = true;
	return 0;
}

int record_in_next(struct record_in *in, struct error *e)
{
	struct wire_record h;
	struct wire_fault f;

	if (in->done)
		return 0;
	in->start = in->offset;
	in->index = in->records;
	int rc = read_bytes(in, &h, sizeof(h), true, e);

	if (rc < 0)
		return rc;
	in->h = h;
	wire_swap_record(&in->h);
	if (wire_check_record(&in->h, !in->records, in->socket, &f) < 0)
		return in->h.magic == WIRE_MAGIC && in->h.version == STREAM_VERSION
			       ? record_in_fail(in, f.code, f.text, e)
			       : error_say(e, f.code, "%s: at byte %ju: %s", in->name, (uintmax_t)in->start,
					   f.text);
	if (in->fd < 0 && in->h.length > in->end - in->pos) {
		in->offset += in->end - in->pos;
		return cut_short(in, false, e);
	}
	if (in->h.length > in->payload_cap || !in->payload) {
		in->payload_cap = MAX(in->h.length, 4096u);
		in->payload = xrealloc(in->payload, in->payload_cap);
	}
	rc = read_bytes(in, in->payload, in->h.length, false, e);
	if (rc < 0)
		return rc;
	if (wire_checksum(&h, in->payload, in->h.length) != in->h.checksum)
		return record_in_fail(in, EBADMSG, "corrupt (checksum)", e);
	if (in->h.sequence != in->sequence)
		return record_in_fail(in, EBADMSG, "out of order", e);
	if (in->h.type == FERRY__RECORD_TYPE__RECORD_TRAILER)
		return finish(in, e);
	rc = check_type(in, e);
	if (rc < 0)
		return rc;
	if (in->records && in->h.type == FERRY__RECORD_TYPE__RECORD_HEADER)
		return record_in_fail(in, EBADMSG, "a second header", e);
	in->sequence++;
	in->records++;
	in->running = wire_running(in->running, in->h.checksum);
	return 1;
}

int record_in_header(struct record_in *in, uint32_t kind, struct stream_header *ret, struct error *e)
{
	static const char *const kinds[] = {"unknown", "state", "page map", "stream", "page server session"};
	struct wire_fault f;
	int rc = record_in_next(in, e);

	if (rc < 0)
		return rc;
	if (rc == 0 || in->h.type != FERRY__RECORD_TYPE__RECORD_HEADER)
		return error_say(e, EBADMSG, "%s does not begin with a header", in->name);
	if (wire_decode_header(in->payload, in->h.length, ret, &f) < 0)
		return error_say(e, f.code, "%s: %s", in->name, f.text);
	if (ret->kind != kind)
		return error_say(e, EBADMSG, "%s: a %s is here where a %s is needed", in->name,
				 kinds[ret->kind < ARRAY_SIZE(kinds) ? ret->kind : 0], kinds[kind]);
	return 0;
}

/* @packed bytes follow, and become @size. */
static int read_packed(struct record_in *in, enum codec c, uint32_t packed, uint8_t *data, size_t size,
		       struct error *e)
{
	if (!in->packed)
		in->packed = xmalloc(STREAM_MAX_RUN);
	int rc = read_bytes(in, in->packed, packed, false, e);

	if (rc < 0)
		return rc;
	rc = codec_unpack(&in->codec, c, in->packed, packed, data, size);
	return rc < 0 ? record_in_fail(in, -rc, "its page data cannot be unpacked", e) : 0;
}

int record_in_pages(struct record_in *in, struct wire_run *runs, size_t *ret_n, uint8_t *data,
		    struct error *e)
{
	enum codec codec = wire_codec(in->h.flags);
	struct wire_fault f;
	uint32_t packed;
	uint64_t size;

	if (wire_decode_pages(in->payload, in->h.length, in->socket, codec, runs, ret_n, &size, &packed, &f) <
	    0)
		return record_in_fail(in, f.code, f.text, e);
	if (!in->socket)
		return 0;
	if (!!size != !!(in->h.flags & WIRE_FLAG_DATA))
		return record_in_fail(in, EBADMSG, "its flags and its runs do not agree on data", e);
	in->data_size += size;
	return packed ? read_packed(in, codec, packed, data, size, e) : read_bytes(in, data, size, false, e);
}

int record_in_check_data(const struct record_in *in, const struct wire_run *r, const void *data,
			 struct error *e)
{
	if (wire_data_checksum(data, run_padded(r->length)) == r->checksum)
		return 0;
	return error_say(
		e, EBADMSG,
		"%s: page data of the record at byte %ju: corrupt (checksum): %ju bytes for %#jx of %s %ju",
		in->name, (uintmax_t)in->start, (uintmax_t)r->length, (uintmax_t)r->addr,
		r->space == SPACE_PROCESS ? "process" : "object", (uintmax_t)r->id);
}
