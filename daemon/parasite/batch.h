/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Compiling "what to do inside the process" into a batch, in ordinary C on the host.  A batch is built in
 * host memory (entries and data grow as needed) without any process; parasite/region.h runs it.
 *
 *	struct batch b = BATCH_INIT;
 *	unsigned fd = batch_call(&b, "open cwd", SYS_openat, ARG(AT_FDCWD), ARG_STR(&b, path), ARG(O_PATH));
 *	batch_call(&b, "change to cwd", SYS_fchdir, ARG_RESULT(fd));
 *	batch_call(&b, "close cwd", SYS_close, ARG_RESULT(fd));
 *
 * After the run batch_result(&b, i) and batch_data(&b, offset) give what came back.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "parasite/abi.h"

struct batch_arg {
	uint8_t kind;
	uint64_t value;
};

struct batch {
	struct pb_entry *entries;
	const char **labels; /* static strings, not owned: name the entry in errors */
	size_t n, cap;
	uint8_t *data;
	size_t data_size, data_cap;
	bool ran, failed;
	bool opens_fds;
	size_t n_done;
};

#define BATCH_INIT \
	{          \
		0  \
	}
void batch_deinit(struct batch *b);

/* Constant argument (pointer values of the target's own address space too). */
#define ARG(v) ((struct batch_arg){PB_ARG_CONST, (uint64_t)(v)})
/* Pointer to batch data at an offset that batch_reserve/batch_put returned. */
#define ARG_DATA(off) ((struct batch_arg){PB_ARG_ARENA, (uint64_t)(off)})
/* Result of an earlier entry. */
#define ARG_RESULT(i)       ((struct batch_arg){PB_ARG_RESULT, (uint64_t)(i)})
#define ARG_STR(b, s)       ARG_DATA(batch_put_str(b, s))
#define ARG_PUT(b, p, size) ARG_DATA(batch_put(b, p, size))

/* Data: offsets, 16-byte aligned. reserve zeroes. Page-aligned variant for bulk I/O. */
size_t batch_reserve(struct batch *b, size_t size);
size_t batch_put(struct batch *b, const void *p, size_t size);
size_t batch_put_str(struct batch *b, const char *s);
/* Host pointer to data at @off; valid until the next reserve/put. */
void *batch_data(struct batch *b, size_t off);

/* Append an entry; returns its index. Accepts non-errors unless changed by one of the setters below. */
unsigned batch_add(struct batch *b, const char *label, enum pb_op op, long nr, unsigned n_args,
		   const struct batch_arg *args);
#define batch_call(b, label, nr, ...)                                                              \
	batch_add(b, label, PB_OP_SYSCALL, nr,                                                     \
		  sizeof((struct batch_arg[]){{0}, ##__VA_ARGS__}) / sizeof(struct batch_arg) - 1, \
		  (struct batch_arg[]){{0}, ##__VA_ARGS__} + 1)
#define batch_op(b, label, op, ...)                                                                \
	batch_add(b, label, op, 0,                                                                 \
		  sizeof((struct batch_arg[]){{0}, ##__VA_ARGS__}) / sizeof(struct batch_arg) - 1, \
		  (struct batch_arg[]){{0}, ##__VA_ARGS__} + 1)
void batch_accept_any(struct batch *b, unsigned i);
void batch_accept_equal(struct batch *b, unsigned i, int64_t value);
void batch_accept_errno(struct batch *b, unsigned i, int err); /* success or this errno (positive) */
/* The result of entry @i is a descriptor that must not stay in the target: it is closed if the host is killed
 * before a later entry (or batch, of the same runner) has closed it. At most 8 at a time. */
void batch_opens_fd(struct batch *b, unsigned i);
/* Copy a word of 4 or 8 bytes, the result of entry @i, into data at @off. */
void batch_store_result(struct batch *b, size_t off, unsigned i, unsigned width);

int64_t batch_result(const struct batch *b, unsigned i);
/* Fill @e from a batch that failed: "<label>: <errno in words>" (with the entry's number). Returns -errno. */
int batch_error(const struct batch *b, struct error *e);
