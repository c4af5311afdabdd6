/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Shared memory that lives apart from the processes which use it: System V segments, and files on tmpfs that
 * are mapped shared (POSIX shared memory).
 *
 * Both may still be there when the tree arrives: a dump does not remove them, and a file may be on a file
 * system that both sides have.  What is found is only used when it is the very one that was captured;
 * anything else under the same id or name is refused.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "procfs/procfs.h"
#include "proto/memory.pb-c.h"
#include "state/memory/memory.h"

/* How object_create came to an object. */
enum object_origin {
	OBJECT_MADE = 0,  /* made here: undone when the rebuild fails */
	OBJECT_FOUND = 1, /* was here; gets the content that was captured */
	OBJECT_SAME = 2,  /* was here, and others may use it: its content is what it is now */
};

/* --- source ----------------------------------------------------------------------------------------- */
/* Is the file at @link (of /proc/PID/map_files) one whose content travels with the tree? */
bool tmpfs_travels(const char *link);
/* Fill in what only the first sight of an object tells. */
int tmpfs_note(struct capture *c, struct memory_object *o, struct error *e);
int sysv_note(struct memory_object *o, int id, struct error *e);
/* What may have changed since: owner, mode, marked for removal. */
void sysv_refresh(struct memory_object *o);
/* Refuse segments that a process outside of the tree has attached too. */
int sysv_check_outside(struct capture *c, struct error *e);
/* describe.c: one VMA as a message; objects behind it are registered. Refuses what cannot be moved (names pid
 * and address); -ENOENT: it is gone. */
/* The same mapping as the last time: its file may be of another size. @last: the mapping before it, or NULL.
 */
void vma_look_at_file(pid_t pid, const struct proc_vma *v, Ferry__Vma *out, const Ferry__Vma *last);
int vma_describe(struct capture *c, pid_t pid, const struct proc_vma *v, Ferry__Vma **ret, struct error *e);
/* A process outside of the tree that maps this inode, with its name, or 0. */
pid_t memory_outside_mapper(const struct tree *t, uint64_t dev, uint64_t ino, char comm[16]);

/* moved.c: the tree runs at the destination and has ended here. Of the objects that were made there (@n ids),
 * files on tmpfs and System V segments that nobody else has are removed here. Best effort: what stays is
 * told. */
void memory_remove_moved(const struct capture *c, const uint64_t *made, size_t n);

/* --- destination ------------------------------------------------------------------------------------ */
/* check: could it be made or used here?  create: descriptor and enum object_origin, or -errno.  finish: all
 * content is there and all processes have it mapped.  discard: the rebuild failed, @fd is what create made.
 */
int sysv_check(const Ferry__Object *o, struct error *e);
int sysv_create(const Ferry__Object *o, int *ret_fd, struct error *e);
int sysv_finish(const Ferry__Object *o, struct error *e);
void sysv_discard(const Ferry__Object *o);
int tmpfs_check(const Ferry__Object *o, struct error *e);
int tmpfs_create(const Ferry__Object *o, int *ret_fd, struct error *e);
int tmpfs_finish(const Ferry__Object *o, int fd, struct error *e);
void tmpfs_discard(const Ferry__Object *o, int fd);
