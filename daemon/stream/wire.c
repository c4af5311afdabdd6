/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/wire.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/image.pb-c.h"

void wire_swap_record(struct wire_record *r)
{
	r->magic = htole32(r->magic);
	r->version = htole16(r->version);
	r->reserved = htole16(r->reserved);
	r->type = htole32(r->type);
	r->flags = htole32(r->flags);
	r->pid = (int32_t)htole32((uint32_t)r->pid);
	r->tid = (int32_t)htole32((uint32_t)r->tid);
	r->length = htole32(r->length);
	r->sequence = htole32(r->sequence);
	r->checksum = htole64(r->checksum);
}

void wire_swap_header(struct wire_header *h)
{
	h->kind = htole32(h->kind);
	h->page_size = htole32(h->page_size);
	h->flags = htole32(h->flags);
	h->parent_length = htole32(h->parent_length);
}

void wire_swap_runs(struct wire_run *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		r[i].space = htole32(r[i].space);
		r[i].flags = htole32(r[i].flags);
		r[i].id = htole64(r[i].id);
		r[i].addr = htole64(r[i].addr);
		r[i].length = htole64(r[i].length);
		r[i].offset = htole64(r[i].offset);
		r[i].checksum = htole64(r[i].checksum);
	}
}

void wire_swap_trailer(struct wire_trailer *t)
{
	t->records = htole64(t->records);
	t->running = htole64(t->running);
	t->data_size = htole64(t->data_size);
}

void wire_swap_ack(struct wire_ack *a)
{
	a->code = htole32(a->code);
	a->text_length = htole32(a->text_length);
	a->records = htole64(a->records);
	a->data_size = htole64(a->data_size);
}

uint64_t wire_checksum(const struct wire_record *h, const void *payload, size_t size)
{
	XXH3_state_t x;

	XXH3_64bits_reset(&x);
	XXH3_64bits_update(&x, h, offsetof(struct wire_record, checksum));
	if (size)
		XXH3_64bits_update(&x, payload, size);
	return XXH3_64bits_digest(&x);
}

uint64_t wire_running(uint64_t running, uint64_t checksum)
{
	uint64_t pair[2] = {htole64(running), htole64(checksum)};

	return XXH3_64bits(pair, sizeof(pair));
}

uint64_t wire_data_checksum(const void *data, size_t size)
{
	return XXH3_64bits(data, size);
}

const char *wire_type_name(uint32_t type)
{
	const ProtobufCEnumValue *v = NULL;

	if (type && type <= INT32_MAX)
		v = protobuf_c_enum_descriptor_get_value(&ferry__record_type__descriptor, (int)type);
	return v ? v->name + strlen("RECORD_") : NULL;
}

int wire_fault_set(struct wire_fault *f, int code, const char *fmt, ...)
{
	va_list ap;

	f->code = code;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	return -code;
}

static uint32_t max_length(uint32_t type)
{
	switch (type) {
	case FERRY__RECORD_TYPE__RECORD_HEADER:
		return sizeof(struct wire_header) + WIRE_MAX_PARENT;
	case FERRY__RECORD_TYPE__RECORD_TRAILER:
		return sizeof(struct wire_trailer);
	case FERRY__RECORD_TYPE__RECORD_PAGES:
		return sizeof(struct wire_pages) + WIRE_MAX_RUNS * sizeof(struct wire_run);
	case FERRY__RECORD_TYPE__RECORD_ACK:
		return sizeof(struct wire_ack) + WIRE_MAX_TEXT;
	default:
		return STREAM_MAX_RECORD;
	}
}

enum codec wire_codec(uint32_t flags)
{
	return flags & WIRE_FLAG_LZ4 ? CODEC_LZ4 : flags & WIRE_FLAG_ZSTD ? CODEC_ZSTD : CODEC_NONE;
}

uint32_t wire_codec_flag(enum codec c)
{
	return c == CODEC_LZ4 ? WIRE_FLAG_LZ4 : c == CODEC_ZSTD ? WIRE_FLAG_ZSTD : 0;
}

int wire_check_record(const struct wire_record *h, bool first, bool socket, struct wire_fault *f)
{
	bool pages = h->type == FERRY__RECORD_TYPE__RECORD_PAGES;

	if (h->magic != WIRE_MAGIC)
		return wire_fault_set(f, EBADMSG,
				      first ? "not a ferry stream (magic %08x)" : "corrupt (magic %08x)",
				      h->magic);
	if (h->version > STREAM_VERSION && first)
		return wire_fault_set(f, EPROTONOSUPPORT, "%s of version %u, this ferry reads up to %u",
				      socket ? "peer sends a stream" : "image is", h->version,
				      STREAM_VERSION);
	if (h->version != STREAM_VERSION)
		return wire_fault_set(f, EBADMSG, "corrupt (version %u)", h->version);
	if (h->reserved)
		return wire_fault_set(f, EBADMSG, "corrupt (reserved bits %04x)", h->reserved);
	if (h->length > max_length(h->type))
		return wire_fault_set(f, EBADMSG, "corrupt (length %u, at most %u is allowed)", h->length,
				      max_length(h->type));
	uint32_t packed = h->flags & (WIRE_FLAG_LZ4 | WIRE_FLAG_ZSTD);

	if ((h->flags & ~(WIRE_FLAGS_KIND | WIRE_FLAG_DATA | WIRE_FLAG_LZ4 | WIRE_FLAG_ZSTD)) ||
	    ((h->flags & WIRE_FLAG_DATA) && !(pages && socket)) ||
	    (packed && (!(h->flags & WIRE_FLAG_DATA) || (packed & (packed - 1)))))
		return wire_fault_set(f, EBADMSG, "unknown flags %08x", h->flags);
	return 0;
}

int wire_decode_header(const uint8_t *payload, size_t size, struct stream_header *ret, struct wire_fault *f)
{
	struct wire_header h;

	if (size < sizeof(h))
		return wire_fault_set(f, EBADMSG, "HEADER of %zu bytes", size);
	memcpy(&h, payload, sizeof(h));
	wire_swap_header(&h);
	if (h.parent_length != size - sizeof(h) || h.parent_length > WIRE_MAX_PARENT)
		return wire_fault_set(f, EBADMSG, "HEADER with a parent path of %u bytes in %zu",
				      h.parent_length, size);
	if (memchr(payload + sizeof(h), 0, h.parent_length))
		return wire_fault_set(f, EBADMSG, "parent path with a zero byte");
	if (h.page_size != WIRE_PAGE)
		return wire_fault_set(f, ENOTSUP, "page size is %u, here it is %u", h.page_size, WIRE_PAGE);
	if (h.flags & ~WIRE_PAGES_ELSEWHERE)
		return wire_fault_set(f, EBADMSG, "unknown flags %08x in the HEADER", h.flags);
	ret->kind = h.kind;
	ret->flags = h.flags;
	memcpy(ret->id, h.id, sizeof(ret->id));
	memcpy(ret->parent_id, h.parent_id, sizeof(ret->parent_id));
	memcpy(ret->parent, payload + sizeof(h), h.parent_length);
	ret->parent[h.parent_length] = 0;
	return 0;
}

int wire_check_run(const struct page_run *r, struct wire_fault *f)
{
	if (r->space > SPACE_FILE)
		return wire_fault_set(f, EINVAL, "unknown page space %u", r->space);
	if ((r->flags & ~(PAGE_RUN_ZERO | PAGE_RUN_DROP | PAGE_RUN_SAME | PAGE_RUN_COPY)) ||
	    (r->flags & (r->flags - 1)))
		return wire_fault_set(f, EINVAL, "unknown flags %08x of a page run", r->flags);
	if (!r->length || r->addr + r->length < r->addr)
		return wire_fault_set(f, EINVAL, "page run at %#jx of impossible length %#jx",
				      (uintmax_t)r->addr, (uintmax_t)r->length);
	if (r->space != SPACE_FILE && ((r->addr | r->length) % WIRE_PAGE))
		return wire_fault_set(f, EINVAL, "page run at %#jx, length %#jx, is not of whole pages",
				      (uintmax_t)r->addr, (uintmax_t)r->length);
	if (r->flags & PAGE_RUN_SAME && (r->space != SPACE_PROCESS || r->from == r->id || !r->from))
		return wire_fault_set(f, EINVAL, "page run at %#jx of %ju cannot be the same as that of %ju",
				      (uintmax_t)r->addr, (uintmax_t)r->id, (uintmax_t)r->from);
	if (r->flags & PAGE_RUN_COPY && (r->space != SPACE_PROCESS || r->from % WIRE_PAGE ||
					 r->length > STREAM_MAX_RUN || r->from + r->length < r->from ||
					 (r->from < r->addr + r->length && r->addr < r->from + r->length)))
		return wire_fault_set(f, EINVAL, "page run at %#jx of %ju cannot be a copy of that at %#jx",
				      (uintmax_t)r->addr, (uintmax_t)r->id, (uintmax_t)r->from);
	return 0;
}

static int check_wire_run(const struct wire_run *w, bool socket, uint64_t data, struct wire_fault *f)
{
	bool copy = w->flags & PAGE_RUN_COPY, from = copy || (w->flags & PAGE_RUN_SAME);
	struct page_run r = {w->space, w->flags, w->id, w->addr, w->length, from ? w->offset : 0};
	int rc = wire_check_run(&r, f);

	if (rc < 0)
		return rc;
	if (copy)
		return socket ? 0
			      : wire_fault_set(f, EBADMSG, "page run at %#jx is a copy, in an image",
					       (uintmax_t)w->addr);
	if (!run_has_data(w->flags)) {
		if ((w->offset && !from) || w->checksum)
			return wire_fault_set(f, EBADMSG, "page run at %#jx without data has an offset",
					      (uintmax_t)w->addr);
		return 0;
	}
	if (w->length > STREAM_MAX_RUN)
		return wire_fault_set(f, EBADMSG, "page run at %#jx of %ju bytes, at most %u are allowed",
				      (uintmax_t)w->addr, (uintmax_t)w->length, STREAM_MAX_RUN);
	if (socket ? w->offset != data : w->offset % WIRE_PAGE || w->offset > INT64_MAX - STREAM_MAX_RUN)
		return wire_fault_set(f, EBADMSG, "page run at %#jx has its data at %#jx", (uintmax_t)w->addr,
				      (uintmax_t)w->offset);
	return 0;
}

int wire_decode_pages(const uint8_t *payload, size_t size, bool socket, enum codec codec,
		      struct wire_run *runs, size_t *ret_n, uint64_t *ret_data, uint32_t *ret_packed,
		      struct wire_fault *f)
{
	struct wire_pages p;
	uint64_t data = 0;

	if (size < sizeof(p))
		return wire_fault_set(f, EBADMSG, "PAGES of %zu bytes", size);
	memcpy(&p, payload, sizeof(p));
	size_t n = le32toh(p.count);

	*ret_packed = le32toh(p.packed);
	if (!n || n > WIRE_MAX_RUNS || size != sizeof(p) + n * sizeof(*runs))
		return wire_fault_set(f, EBADMSG, "PAGES of %zu bytes with %zu runs", size, n);
	memcpy(runs, payload + sizeof(p), n * sizeof(*runs));
	wire_swap_runs(runs, n);
	for (size_t i = 0; i < n; i++) {
		int rc = check_wire_run(&runs[i], socket, data, f);

		if (rc < 0)
			return rc;
		if (run_has_data(runs[i].flags))
			data += run_padded(runs[i].length);
		if (socket && data > STREAM_MAX_RUN)
			return wire_fault_set(f, EBADMSG, "PAGES with more than %u bytes of data",
					      STREAM_MAX_RUN);
	}
	/* Packed is less: what does not get smaller goes as it is. */
	if (codec == CODEC_NONE ? *ret_packed != 0 : !*ret_packed || *ret_packed >= data)
		return wire_fault_set(f, EBADMSG, "PAGES with %ju bytes of data in %u, packed with %s",
				      (uintmax_t)data, *ret_packed, codec_name(codec));
	*ret_n = n;
	*ret_data = data;
	return 0;
}

int wire_decode_trailer(const uint8_t *payload, size_t size, struct wire_trailer *ret, struct wire_fault *f)
{
	if (size != sizeof(*ret))
		return wire_fault_set(f, EBADMSG, "TRAILER of %zu bytes", size);
	memcpy(ret, payload, sizeof(*ret));
	wire_swap_trailer(ret);
	return 0;
}
