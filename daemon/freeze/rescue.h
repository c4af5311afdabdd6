/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What must be undone if the process that traces the target dies at a bad moment (kill -9).
 *
 * The log is a table in memory shared between the tracing worker and its supervisor.  Each entry is
 * written before the change it describes and cleared after the change is undone.  A supervisor that sees
 * its worker die abnormally calls rescue_run(): it seizes the threads named, puts registers and mask back,
 * unmaps injected regions and closes injected descriptors, and detaches.  A process of which nobody has a log
 * cures itself where it can: see the dead-host rule in parasite/abi.h.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "freeze/task.h"

/* Map a new, empty log shared with children of this process, and make it the one used by this process. */
int rescue_init(struct error *e);
/* Used by task_save/task_restore/task_release and by the parasite; no-ops without a log. Skeletons are never
 * logged. */
void rescue_note_task(const struct task *t);
void rescue_clear_task(const struct task *t);
void rescue_note_region(pid_t pid, uint64_t addr, uint64_t size);
void rescue_clear_region(pid_t pid);
/* A descriptor to be closed in the target. RESCUE_UFFD, noted before a userfaultfd is made there, whatever
 * its number will be: all userfaultfds without a handshake. */
#define RESCUE_UFFD (-2)
void rescue_note_fd(pid_t pid, int fd);
void rescue_clear_fd(pid_t pid);
/* Where the parasite in @pid itself lists such descriptors, in the target's memory: at @list a 32-bit count
 * and as many descriptors (-1: none); at @busy two 32-bit words that are equal when it is not in a batch.
 * Until the region is cleared. */
void rescue_note_undo(pid_t pid, uint64_t busy, uint64_t list);
/* A cgroup that must be thawed (@frozen false), or one that its owner had frozen and that must be so again.
 */
void rescue_note_cgroup(const char *dir, bool frozen);
void rescue_clear_cgroup(void);
/* TCP connections of threads that are noted may be in repair mode, and a table of nf_tables called @hold ("":
 * none) drop their packets. NULL: not any more. */
void rescue_note_repair(const char *hold);
/* That table, if it is to be removed after rescue_run(), or "". */
const char *rescue_hold(void);
/* A plugin is called: @what of @plugin, both of which stay; NULL: not any more. */
void rescue_note_call(const char *plugin, const char *what);
/* The call has taken longer than it may: the worker ends because of that. */
void rescue_note_overdue(unsigned limit_ms);
/* After rescue_run(): what that has to do with the worker's end, as the end of a sentence, or "". */
const char *rescue_call(void);
/* In the supervisor, after the worker's death. Returns the number of tasks cured, or -errno with @e filled.
 */
int rescue_run(struct error *e);
