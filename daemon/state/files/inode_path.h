/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A name for an inode that is known by number and file handle only (as fdinfo of inotify tells it). */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct inode_name {
	dev_t dev; /* of its file system, as the kernel has it */
	uint64_t ino;
	int handle_type;
	uint8_t handle[128];
	unsigned handle_bytes; /* 0: none */
};

/* The handle in a line of fdinfo ("fhandle-bytes:8 fhandle-type:1 f_handle:..."), if it has one; false: it
 * makes no sense. */
bool inode_name_handle(const char *line, struct inode_name *n);

struct inode_paths; /* those that were found: a name is looked up once */
void inode_paths_free(struct inode_paths *p);
/* @may_search: go through directories if need be (not while the target is frozen). *ret is malloc'ed.
 * -ENOENT without a text: there is no such name. */
int inode_path_find(struct inode_paths **paths, const struct inode_name *n, bool may_search, char **ret,
		    struct error *e);
