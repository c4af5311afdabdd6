/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The bytes of docs/image-format.md: structs as they lie on disk and wire (little endian), their conversion,
 * and the checks that need no more than the bytes themselves. Pure functions, nothing here reads or writes a
 * file.
 */
#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream/codec.h"
#include "stream/stream.h"

#define WIRE_MAGIC      0x59525246u /* "FRRY" */
#define WIRE_FLAG_DATA  (1u << 31)  /* page data follows the payload */
#define WIRE_FLAG_LZ4   (1u << 30)  /* these are packed */
#define WIRE_FLAG_ZSTD  (1u << 29)
#define WIRE_FLAGS_KIND 0xffffu /* flags that belong to the record type */
#define WIRE_OPTIONAL   0x8000u /* types from here on are skipped when unknown */
#define WIRE_PEER_FIRST 256u
#define WIRE_PEER_LAST  511u
#define WIRE_MAX_RUNS   4096u
#define WIRE_MAX_PARENT 4095u
#define WIRE_MAX_TEXT   1024u
#define WIRE_PAGE       4096u

struct wire_record {
	uint32_t magic;
	uint16_t version;
	uint16_t reserved;
	uint32_t type;
	uint32_t flags;
	int32_t pid;
	int32_t tid;
	uint32_t length;
	uint32_t sequence;
	uint64_t checksum;
};
static_assert(sizeof(struct wire_record) == 40, "record header");
static_assert(offsetof(struct wire_record, checksum) == 32, "record header");

enum wire_kind {
	WIRE_STATE = 1,
	WIRE_PAGEMAP = 2,
	WIRE_SOCKET = 3,
	WIRE_PAGE_SERVER = 4,
};

struct wire_header {
	uint32_t kind;
	uint32_t page_size;
	uint32_t flags;
	uint32_t parent_length;
	uint8_t id[16];
	uint8_t parent_id[16];
};
static_assert(sizeof(struct wire_header) == 48, "HEADER");
#define WIRE_PAGES_ELSEWHERE (1u << 0)

struct wire_pages {
	uint32_t count;
	uint32_t packed; /* bytes of page data as they follow, if they are packed; else 0 */
};
static_assert(sizeof(struct wire_pages) == 8, "PAGES");

struct wire_run {
	uint32_t space;
	uint32_t flags;
	uint64_t id;
	uint64_t addr;
	uint64_t length;
	uint64_t offset; /* SAME: pid; COPY: address */
	uint64_t checksum;
};
static_assert(sizeof(struct wire_run) == 48, "page run");

struct wire_trailer {
	uint64_t records;
	uint64_t running;
	uint64_t data_size;
};
static_assert(sizeof(struct wire_trailer) == 24, "TRAILER");

struct wire_ack {
	uint32_t code;
	uint32_t text_length;
	uint64_t records;
	uint64_t data_size;
};
static_assert(sizeof(struct wire_ack) == 24, "ACK");

/* HEADER, decoded. */
struct stream_header {
	uint32_t kind;
	uint32_t flags;
	uint8_t id[16];
	uint8_t parent_id[16];
	char parent[WIRE_MAX_PARENT + 1]; /* "": none */
};

static inline bool run_has_data(uint32_t flags)
{
	return !(flags & (PAGE_RUN_ZERO | PAGE_RUN_DROP | PAGE_RUN_SAME | PAGE_RUN_COPY));
}

static inline uint64_t run_padded(uint64_t length)
{
	return (length + WIRE_PAGE - 1) & ~(uint64_t)(WIRE_PAGE - 1);
}

/* Host order <-> little endian, in place: the same operation both ways. */
void wire_swap_record(struct wire_record *r);
void wire_swap_header(struct wire_header *h);
void wire_swap_runs(struct wire_run *r, size_t n);
void wire_swap_trailer(struct wire_trailer *t);
void wire_swap_ack(struct wire_ack *a);

/* Checksum of a record: @h in wire order. Then the next value of the running checksum. */
uint64_t wire_checksum(const struct wire_record *h, const void *payload, size_t size);
uint64_t wire_running(uint64_t running, uint64_t checksum);
uint64_t wire_data_checksum(const void *data, size_t size);

/* "TREE", or NULL when the type is not one of proto/image.proto. */
const char *wire_type_name(uint32_t type);

/* What a decoder found wrong, for the sentence that the reader builds around it; "" for nothing. */
struct wire_fault {
	int code;
	char text[160];
};

/* Header of a record in host order, before the payload is read: magic, version, reserved bits, length within
 * the limit of its type. 0 or -errno with @f. @first: no record was read yet. */
int wire_check_record(const struct wire_record *h, bool first, bool socket, struct wire_fault *f);
int wire_decode_header(const uint8_t *payload, size_t size, struct stream_header *ret, struct wire_fault *f);
/* The runs of a PAGES payload, converted into @runs (WIRE_MAX_RUNS of them). @socket: offsets count from the
 * data of the record. @codec: of its flags. *ret_data: bytes of page data of the record; *ret_packed: bytes
 * that follow for them, if they are packed. */
int wire_decode_pages(const uint8_t *payload, size_t size, bool socket, enum codec codec,
		      struct wire_run *runs, size_t *ret_n, uint64_t *ret_data, uint32_t *ret_packed,
		      struct wire_fault *f);
/* What a record's flags say of its page data. */
enum codec wire_codec(uint32_t flags);
uint32_t wire_codec_flag(enum codec c);
int wire_decode_trailer(const uint8_t *payload, size_t size, struct wire_trailer *ret, struct wire_fault *f);
int wire_fault_set(struct wire_fault *f, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* One run, as put or as read: space, flags, alignment, overflow. */
int wire_check_run(const struct page_run *r, struct wire_fault *f);
