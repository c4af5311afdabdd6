/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of a receiving stream: of a socket (in.c) or of a chain of image directories (image_in.c). */
#include <sys/types.h>

#include "stream/plan.h"
#include "stream/records.h"

struct image_dir {
	int pages_fd; /* -1: no data are read */
	char *name;   /* for messages: "" or "../1/" */
	uint64_t pages_size;
	dev_t dev;
	ino_t ino;
};

struct stream_in {
	bool socket;
	bool started;        /* socket: the header was read */
	struct record_in in; /* the socket or state.img */
	struct stream_header header;
	uint8_t *data; /* STREAM_MAX_RUN bytes: of a record (socket), a window of pages.img (image) */

	struct wire_run *runs; /* socket: of the last PAGES record */
	size_t n_runs, next_run;

	unsigned flags;  /* IMAGE_* */
	bool has_memory; /* pagemap.img was there */
	int state_fd;
	struct image_dir *dirs;
	size_t n_dirs;
	struct plan plan;
	bool planned; /* pieces are in the order of reading */
	int (*before_pages)(void *ctx, struct stream_in *s, struct error *e);
	void *before_ctx;
	size_t next_piece;
	uint32_t window_dir;
	uint64_t window_start, window_end;
	size_t checked_run; /* index + 1 of the run in the window whose checksum was compared last */
};

#define IMAGE_CHAIN   (1u << 0) /* with its parents, each address once */
#define IMAGE_PARTIAL (1u << 1) /* state.img or pagemap.img and pages.img may be missing */
#define IMAGE_NO_DATA (1u << 2) /* runs come without their data */

struct stream_in *stream_in_new(struct error *e);
int image_in_open(struct stream_in **ret, int dirfd, unsigned flags, struct error *e);
int image_in_get(struct stream_in *s, struct record *ret, struct error *e);
void image_in_deinit(struct stream_in *s);
/* Data of a run, whole and checked; valid until the next call. */
int image_in_run_data(struct stream_in *s, size_t run, const uint8_t **ret, struct error *e);
/* Fill @ret from the last record of s->in. */
void stream_in_state(const struct stream_in *s, struct record *ret);
void stream_in_run(const struct wire_run *r, struct record *ret);
