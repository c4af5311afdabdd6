/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The host side of the parasite: puts the region into a process, starts threads in it, runs batches, takes
 * everything out again.  See parasite/abi.h for the protocol.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "freeze/task.h"
#include "parasite/batch.h"

struct region; /* the parasite in one process */
struct runner; /* one thread of it that runs batches */

/* Inject the region into the process of @t (stopped and saved, or a skeleton) with one mmap at @addr (page
 * aligned; 0: choose a free place, away from existing VMAs). @size: bytes for all of it, rounded up to pages;
 * up to 1 GiB, unpopulated pages cost nothing. Fails without a trace in the target. */
int region_inject(struct region **ret, struct task *t, uint64_t addr, size_t size, struct error *e);
/* Same for a task that is a fresh fork of a skeleton and still has its parent's region mapped at the same
 * place: replaces it. */
int region_inject_over(struct region **ret, struct task *t, const struct region *parents, struct error *e);
/* Bytes a region needs for this many runners at a time and batches of this many bytes (entries and data). */
size_t region_size_for(size_t n_runners, size_t batch_bytes);
/* Stop all runners, put saved registers back, unmap. The mapping of the host goes too. */
int region_remove(struct region *r, struct error *e);
/* Forget (the process is dead or was exec'ed): host side only. */
void region_free(struct region *r);
uint64_t region_addr(const struct region *r);
uint64_t region_size(const struct region *r);
/* Address of a system call instruction inside the region. */
uint64_t region_syscall_insn(const struct region *r);

/* Start @t (stopped, saved or skeleton) in the region: all signals blocked, waiting for batches. */
int runner_start(struct runner **ret, struct region *r, struct task *t, struct error *e);
/* Interrupt the thread; it is in a ptrace stop again, with its saved registers and mask put back (but still
 * saved, see task_restore). Frees the runner. */
int runner_stop(struct runner *w, struct error *e);

struct task *runner_task(const struct runner *w);

/* Run @b in the thread of @w and wait for it. 0; -errno with @e naming entry and errno when an entry was not
 * acceptable (target alive, runner usable); -ESRCH when the thread died. The region's arena must have room:
 * batches are copied in and out. */
int runner_run(struct runner *w, struct batch *b, struct error *e);
/* All at once: post every batch, then wait for every one. Fails with the first failure, after all have ended.
 */
int runner_run_all(struct runner **w, struct batch **b, size_t n, struct error *e);

/* The stub: an ELF program around the blob for execveat; a sealed memfd (CLOEXEC). For skeleton roots. The
 * program sleeps until it is traced; it is mapped at STUB_ADDR. */
#define STUB_ADDR 0x100000000ull
int stub_memfd(struct error *e);
