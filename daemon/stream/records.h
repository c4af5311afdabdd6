/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Sequences of records: buffered writing to and checked reading from one file or one direction of a socket.
 * Inside the stream layer. */
#include <sys/uio.h>

#include "base/error.h"
#include "stream/wire.h"

struct record_out {
	int fd; /* not owned */
	bool socket;
	const char *name; /* for messages: "pagemap.img", "connection" */
	uint8_t *buf;
	size_t used;
	uint32_t sequence;
	uint64_t records;
	uint64_t running;
	uint64_t data_size; /* of page data, before packing */
	uint64_t bytes;
	int failed; /* errno of the first failure: nothing is written after it */
};

int record_out_init(struct record_out *o, int fd, const char *name, bool socket, struct error *e);
void record_out_deinit(struct record_out *o);
/* @type, @pid, @tid, @flags from @h. @data (may be NULL) follows the payload, and is not in the checksum. */
int record_out_put(struct record_out *o, const struct wire_record *h, const void *payload, size_t size,
		   const void *data, size_t data_size, struct error *e);
int record_out_header(struct record_out *o, const struct stream_header *h, struct error *e);
/* @data_size: what the trailer says. */
int record_out_trailer(struct record_out *o, uint64_t data_size, struct error *e);
int record_out_flush(struct record_out *o, struct error *e);
/* Raw bytes through the same error handling; past the buffer. */
int stream_write(int fd, bool socket, const char *name, const struct iovec *iov, int n, struct error *e);

struct record_in {
	int fd; /* not owned; -1: everything is in the buffer */
	bool socket;
	char *name;   /* owned */
	uint8_t *buf; /* read-ahead, files only */
	size_t pos, end, cap;
	uint64_t offset; /* of the next byte */
	uint64_t start;  /* of the last record */
	uint64_t index;  /* of the last record */
	uint32_t sequence;
	uint64_t records;
	uint64_t running;
	uint64_t data_size; /* socket: page data announced so far */
	uint8_t *payload;
	size_t payload_cap;
	struct wire_record h; /* last record, host order */
	struct wire_trailer trailer;
	uint8_t *packed; /* STREAM_MAX_RUN bytes, made if need be */
	struct codec_state *codec;
	bool done;
};

/* Files: read from the present position. */
void record_in_init(struct record_in *in, int fd, const char *name, bool socket);
/* Records from memory (a fuzzer, a test): as a socket's or a file's. */
void record_in_init_memory(struct record_in *in, const void *bytes, size_t size, bool socket);
void record_in_deinit(struct record_in *in);
/* 1: in->h and in->payload; 0: the trailer was read and is right; -errno. Header, checksum, sequence, and
 * that the type is known are checked here (optional unknown types are passed on). */
int record_in_next(struct record_in *in, struct error *e);
/* First record. @kind: what it must be. */
int record_in_header(struct record_in *in, uint32_t kind, struct stream_header *ret, struct error *e);
/* After a PAGES record. @data: STREAM_MAX_RUN bytes that get the data of a socket's record. */
int record_in_pages(struct record_in *in, struct wire_run *runs, size_t *ret_n, uint8_t *data,
		    struct error *e);
/* Page data against the checksum of its run. */
int record_in_check_data(const struct record_in *in, const struct wire_run *r, const void *data,
			 struct error *e);
/* "pagemap.img: record 5 (PAGES) at byte 1234: TEXT" */
int record_in_fail(const struct record_in *in, int code, const char *text, struct error *e);
