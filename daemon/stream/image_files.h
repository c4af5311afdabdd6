/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The files of an image while they are written. They get their names only at the commit, so that a directory
 * never holds half an image: see docs/image-format.md, 6. Inside the stream layer.
 */
#include <stdbool.h>

#include "base/error.h"
#include "stream/wire.h"

#define STATE_IMG   "state.img"
#define PAGEMAP_IMG "pagemap.img"
#define PAGES_IMG   "pages.img"

enum image_file {
	IMAGE_STATE,
	IMAGE_PAGEMAP,
	IMAGE_PAGES,
	IMAGE_FILES,
};

struct image_files {
	int dirfd;           /* own, usable for fsync */
	int fd[IMAGE_FILES]; /* -1: not written here */
};

const char *image_file_name(enum image_file f);
/* Create NAME.part for the files in @which (bits 1 << enum image_file). Nothing is left behind on failure. */
int image_files_create(struct image_files *f, int dirfd, unsigned which, struct error *e);
/* Sync (unless @fast), then give the files their names, replacing older ones. */
int image_files_commit(struct image_files *f, bool fast, struct error *e);
/* Remove what has not been committed; close. */
void image_files_deinit(struct image_files *f);

/* Open for reading; not a regular file: refused. -ENOENT is reported like every failure. */
int image_open_file(int dirfd, enum image_file which, int *ret_fd, struct error *e);
/* Header of state.img or pagemap.img in @dirfd. */
int image_read_header(int dirfd, enum image_file which, struct stream_header *ret, struct error *e);
/* Open a directory named in an image or by a user, relative to @dirfd. */
int image_open_parent(int dirfd, const char *parent, int *ret_fd, struct error *e);
/* Fill parent and parent_id of @h for an image in @dirfd. The parent must be an image and another directory.
 */
int image_set_parent(int dirfd, const char *parent, struct stream_header *h, struct error *e);
