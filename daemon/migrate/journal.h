/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What each side of a migration keeps on disk, so that whoever comes after it knows what to do:
 * docs/migration-protocol.md, "Journal".  One file per migration and side; who is at work on it holds a lock
 * on the file, which the kernel takes away from the dead.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "migrate/states.h"

#define JOURNAL_KEEP_SECS  (7 * 24 * 3600) /* final states that nobody asked about */
#define JOURNAL_KEEP_FILES 1000

struct journal_process {
	pid_t pid;
	uint64_t start; /* field 22 of /proc/PID/stat: tells a reused pid */
	bool runs;      /* it is not to be left stopped */
};

struct journal {
	char uuid[37];
	enum migration_side side;
	enum migration_state state;
	pid_t owner;  /* for people; what counts is the lock */
	int64_t time; /* of the last change, seconds since the epoch */
	char *to;     /* source: where it goes */
	bool insecure;
	char *there;   /* source: the life of the destination (journal_life) when it answered */
	uint64_t left; /* source: pages that stay here when the target starts over there (post-copy) */
	struct journal_process *procs;
	size_t n_procs;
	struct journal_address {
		char local[64], peer[64]; /* the address of a socket that moves, and of whom it talks to */
	} * addresses;
	size_t n_addresses;

	char *dir;    /* of its file */
	int fd;       /* locked; -1: somebody else has the lock, or there is no file yet */
	bool changed; /* more than the state since it was last written */
};

/* Not on disk before the first journal_state(). */
struct journal *journal_new(const char *dir, enum migration_side side, const char *uuid);
/* Forget it in memory; the file stays, the lock goes. NULL is fine. */
void journal_free(struct journal *j);
void journal_add_process(struct journal *j, pid_t pid, uint64_t start, bool runs);
void journal_clear_processes(struct journal *j);
/* Each once. */
void journal_add_address(struct journal *j, const char *local, const char *peer);
void journal_set(struct journal *j, const char *to, bool insecure, const char *there);
void journal_set_left(struct journal *j, uint64_t pages);
/* Write and sync. A state alone is changed in place: that needs no room on the disk. */
int journal_state(struct journal *j, enum migration_state s, struct error *e);
void journal_remove(struct journal *j);

/* Read one and try to become its owner: j->fd >= 0 then. 0, or -errno (-ENOENT: there is none). */
int journal_open(struct journal **ret, const char *dir, enum migration_side side, const char *uuid,
		 struct error *e);
/* Call @each with the id of every entry; stops when it returns non-zero, and returns that. */
int journal_each(const char *dir, enum migration_side side,
		 int (*each)(void *ctx, const char *dir, const char *uuid), void *ctx);
/* Remove final entries that are too old or too many. */
void journal_sweep(const char *dir, enum migration_side side);

bool journal_uuid_ok(const char *uuid);
/* Names the life of this machine (or container): all that runs in it ends when this changes. malloc'ed. */
char *journal_life(void);

/* The processes of an entry that still are what they were. */
size_t journal_alive(const struct journal *j);
/* SIGKILL all of them and wait until they are gone. */
int journal_kill(const struct journal *j, struct error *e);
/* Addresses that move with the program: none is left here; or all are here. */
int journal_drop_addresses(const struct journal *j, struct error *e);
int journal_take_addresses(const struct journal *j, struct error *e);
/* Their TCP connections leave repair mode, and those that should run do. */
void journal_let_go(const struct journal *j);
