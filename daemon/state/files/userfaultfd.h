/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Userfaultfds of the program's own; see userfaultfd.c. */
#include <stdbool.h>

#include "base/page_set.h"
#include "proto/memory.pb-c.h"
#include "state/files/fd_type.h"
#include "state/kind.h"

/* Is @link, of /proc/PID/fd, a userfaultfd? */
bool userfaultfd_is(const char *link);
/* For the engine, source, after the first look at all mappings: refuse memory whose faults a process outside
 * of the tree handles. */
int userfaultfd_check(struct capture *c, struct error *e);

/* --- between its files -------------------------------------------------------------------------------- */
bool userfaultfd_register(int uffd, uint64_t start, uint64_t end, uint32_t modes);
/* Pages of a part of @v as the two sides compare them. */
int userfaultfd_pages(int pagemap, const Ferry__Vma *v, uint64_t start, uint64_t end, struct page_set *ret);
int userfaultfd_preflight(struct capture *c, struct fd_facts *f, struct error *e);
int userfaultfd_refuse_outside(struct capture *c, const struct process *p, const Ferry__Vma *v,
			       struct error *e);
/* First mapping of @p with one of these flags, or NULL. */
const Ferry__Vma *userfaultfd_find_registered(const struct process *p, uint64_t flags);
int userfaultfd_check_here(struct rebuild *r, const FileDescription *m, struct error *e);
int userfaultfd_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e);
int userfaultfd_connect(struct rebuild *r, const FileDescription *m, struct error *e);
