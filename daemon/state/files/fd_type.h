/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Types of open file descriptions: one row in one table (files/fd_types.c) each.  files/collect.c finds the
 * descriptions (who shares what), files/files.c asks the type to describe each and opens each again,
 * files/fdtable.c puts them back at their numbers.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"
#include "proto/files.pb-c.h"
#include "state/kind.h"

typedef Ferry__FileKind FileKind;
typedef Ferry__FileDescription FileDescription;
#define FILE_KIND(k) FERRY__FILE_KIND__FILE_##k

/* What is known of one description before its type looks at it. */
struct fd_facts {
	pid_t pid; /* a process and number it is open as: for messages, and /proc/PID/fdinfo */
	int fd;
	pid_t living;     /* what pid goes by in /proc (process_living) */
	int copy;         /* our copy (pidfd_getfd), -1 for types that are `by_path`; closed by the caller */
	const char *link; /* text of /proc/PID/fd/N; "pipe:" and "socket:" for those, without the number */
	char *fdinfo;     /* NULL until fd_facts_info() was called */
	struct stat st;
	int flags;                  /* F_GETFL */
	int64_t pos;                /* of what can be seeked, else 0 */
	int domain, type, protocol; /* of a socket; -1: none */
	bool path_ok;               /* link is a name of this very file */
	bool extra;  /* in no table: pid and fd are a socket's it is queued in, fdinfo is that of our copy */
	bool frozen; /* the target is; if not, contents may be left out */
	uint64_t id; /* of the description in the image */
	const char *external; /* it is one that does not travel: its line in the list (files/external.h) */
};

/* Text of /proc/PID/fdinfo/N, read on first use. NULL with @e filled on failure. */
const char *fd_facts_info(struct fd_facts *f, struct error *e);

struct fd_type {
	const char *name;
	FileKind kind;
	/* Stat, flags, position and link are enough: capture gets no copy (which costs, and is a reference).
	 */
	bool by_path;
	bool (*match)(const struct fd_facts *f);
	/* Refuse what cannot be captured: "pid 12 fd 3: <kind> is not supported (why, what to do)". Target
	 * running. May be NULL when capture itself refuses while the target runs, which it is asked to do
	 * next. */
	int (*preflight)(struct capture *c, struct fd_facts *f, struct error *e);
	/* Fill the type's part of @m. Target frozen, or running when !f->frozen (then it must not consume or
	 * change anything and may leave contents out). */
	int (*capture)(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e);
	/* Source: after every description of the tree was captured, once per type: look at all of them. May
	 * be NULL. */
	int (*settle)(struct capture *c, Ferry__Files *all, struct error *e);
	/* Destination, warm: is what it needs there? May be NULL. */
	int (*check)(struct rebuild *r, const FileDescription *m, struct error *e);
	/* Destination: make the description; a descriptor of the host in *ret_fd, left alone if it was made
	 * before and is in stock (files_put). Called once all records are there. */
	int (*open)(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e);
	/* Destination: after every description was opened, host side: fill queues, connect things that refer
	 * to others. May be NULL. */
	int (*connect)(struct rebuild *r, const FileDescription *m, struct error *e);
	/* Destination: in a process that holds @m, at number @fd, after all its descriptors are in place
	 * (epoll). Called once for every process that has the description. May be NULL. */
	int (*place)(struct rebuild *r, const FileDescription *m, struct process *p, int fd, struct batch *b,
		     struct error *e);
	/* Destination: host side, at the very end. All processes have their descriptors, and the host has
	 * closed its own but those of types with this slot, of which @fd is one. May be NULL. */
	int (*late)(struct rebuild *r, const FileDescription *m, int fd, struct error *e);
};

extern const struct fd_type
	*const fd_types[]; /* first match wins; NULL-terminated; the last one matches everything */
const struct fd_type *fd_type_match(const struct fd_facts *f);
const struct fd_type *fd_type_of_kind(FileKind kind); /* NULL: unknown */

/* Descriptor of the host for a description that was opened, or -1. Valid until files_trim(). */
int files_host_fd(struct rebuild *r, uint64_t id);
/* Describe one description that is not in any fd table of the tree (queued in a socket): id of it, captured
 * like any other. Takes ownership of @copy. @pid, @fd: the socket, for messages. */
int files_capture_extra(struct capture *c, pid_t pid, int fd, int copy, uint64_t *ret_id, struct error *e);
