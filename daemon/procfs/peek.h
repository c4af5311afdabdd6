/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the kernel knows and has no call for: members of its structs are read, never written, by a small BPF
 * program that can read eight bytes at an address and nothing else.  A kernel without BPF or BTF, or one that
 * does not let us (lockdown), is an error that says so.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "procfs/btf.h"

struct peek;
/* Made at the first call and kept (some 20 ms; a call that fails is made again the next time). NULL with @e
 * filled. Not to be called by two threads at once. */
struct peek *peek_get(struct error *e);
const struct btf *peek_types(const struct peek *p);
/* The number of @size bytes at @addr. */
int peek_read(const struct peek *p, uint64_t addr, unsigned size, uint64_t *ret, struct error *e);
/* Member @f of what is at @addr. */
int peek_field(const struct peek *p, uint64_t addr, const struct btf_field *f, uint64_t *ret,
	       struct error *e);
/* The `struct file` of a descriptor of ours. */
int peek_file(const struct peek *p, int fd, uint64_t *ret, struct error *e);
/* What lies behind it for its kind: file->private_data. */
int peek_private(const struct peek *p, int fd, uint64_t *ret, struct error *e);
/* The number of a task in our own pid namespace. */
int peek_task_id(const struct peek *p, uint64_t task, pid_t *ret, struct error *e);
/* Sum of a per-CPU variable of @size bytes, with its sign (4) or without. */
int peek_sum(const struct peek *p, uint64_t percpu, const struct btf_field *f, int64_t *ret, struct error *e);
