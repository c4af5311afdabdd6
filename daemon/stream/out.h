/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of a sending stream. One sequence of records for state, one for page runs; on a plain socket
 * they are the same. */
#include "stream/image_files.h"
#include "stream/records.h"

#define WIRE_MAX_TABLE (sizeof(struct wire_pages) + WIRE_MAX_RUNS * sizeof(struct wire_run))

/* Page runs and their data on the way to one PAGES record. */
struct page_packer {
	struct wire_run *runs; /* host order, offsets from the beginning of data */
	size_t n;
	uint8_t *data; /* STREAM_MAX_RUN bytes, page aligned */
	size_t used;   /* a multiple of the page size */
};

/* Packing of page data on a socket (compress.c). */
struct packing {
	struct choice choice;
	struct codec_state *codec;
	uint8_t *packed; /* STREAM_MAX_RUN bytes; NULL: nothing is ever packed */
	uint64_t last;   /* ns: when the last record was given to the link; 0: it is idle */
	struct stream_flow flow;
};

struct stream_out {
	struct record_out first, second;
	struct record_out *state; /* NULL: page server, which has no state */
	struct record_out *map;
	struct image_files files; /* dirfd -1: none */
	bool pages_file;          /* page data go to files.fd[IMAGE_PAGES], else after their records */
	bool page_server;         /* map is the connection to one */
	bool fast;
	bool finished;
	uint64_t written; /* bytes of pages.img */
	uint64_t started; /* of them: write-back asked for */
	struct stream_header header;
	struct page_packer pack;
	struct packing packing;
	bool copies;      /* the reader knows COPY */
	uint8_t *table;   /* payload of a PAGES record */
	uint8_t *scratch; /* packed message */
	size_t scratch_cap;
};

int stream_out_new(struct stream_out **ret, struct error *e);
/* New random id, no parent. */
int stream_header_init(struct stream_header *h, struct error *e);
/* Write one PAGES record: runs in host order, offsets from the beginning of @data. They are changed. */
int stream_emit_pages(struct stream_out *s, struct wire_run *runs, size_t n, const void *data, size_t size,
		      struct error *e);
/* Write one record with the data of its pages behind it, packed if that pays. @table: its payload. */
int stream_put_data(struct stream_out *s, const struct wire_record *h, uint8_t *table, size_t table_size,
		    const void *data, size_t size, struct error *e);
void packing_deinit(struct packing *p);
/* Directory: pagemap.img and pages.img, and state.img if @state. @header: kind is filled in. */
int stream_out_files(struct stream_out *s, int dirfd, bool state, struct error *e);
/* page_server.c: fails if the server has said something already; waits for its answer. */
int page_server_poll(struct stream_out *s, struct error *e);
int page_server_wait(struct stream_out *s, struct error *e);
