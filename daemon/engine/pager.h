/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A tree that runs while pages of its memory are missing: its userfaultfds, and what must not be lost when
 * the process that reads them is killed (docs/post-copy.md, "Who may die when").
 */
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/page_set.h"
#include "engine/missing.h"

struct pager_file;
struct pager_event;

struct pager_fault {
	size_t space, source;
	uint64_t addr, mark, since; /* ns */
};

/* Shared memory of which pages are missing. It has them all the same, with older content: so that it shows
 * when one is taken away. */
struct pager_object {
	int fd;
	uint64_t size;
	char *mem; /* our own mapping; NULL: none yet */
};

struct pager {
	struct missing missing;
	char *path; /* of the file of state; NULL: not written yet */
	struct pager_file *file;
	size_t size;
	pid_t holder; /* keeps the descriptors; 0: none yet */
	bool holder_is_child;

	struct pager_fault *waiting; /* threads that wait for a page of the source */
	size_t n_waiting, cap_waiting;
	struct pager_read { /* faults that were read and not looked at yet */
		size_t space;
		uint64_t addr, since;
		bool minor; /* the object has the page, the page table has not */
	} * faults;
	size_t n_faults, cap_faults;
	struct pager_event *pending; /* events that were read and are not in the books yet */
	size_t n_pending;
	struct pager_object *objects;
	size_t n_objects;
	int own_uffd; /* of our own mappings: what was taken away does not come back by our writing to it */
	struct {
		size_t space;
		uint64_t done;      /* address */
	} repaired;                 /* huge pages: as far as they have been made */
	uint64_t total;             /* pages that were missing at the start */
	uint64_t n_served, n_zeros; /* faults: for pages of the source, for pages that nobody has */
	uint64_t n_events;          /* read from all memories */
	uint64_t arrived,
		again; /* pages that came; of these, when they were there already, or not wanted any more */
};

/* No space yet. */
struct pager *pager_new(void);
/* Forget it: the holder and the file stay, and whoever comes next goes on. NULL is fine. */
void pager_free(struct pager *p);
/* A process of the tree: @uffd (taken over) is registered for the memory of @registered, in which @pages are.
 */
void pager_add(struct pager *p, pid_t pid, const struct page_set *pages, const struct page_set *registered,
	       int uffd);
/* The same, where some of @pages are shared memory: those of @own alone are missing in this process.  Before
 * any of the following. */
void pager_add_mixed(struct pager *p, pid_t pid, const struct page_set *pages, const struct page_set *own,
		     const struct page_set *registered, int uffd);
/* Shared memory: @fd is taken over. Its number. */
size_t pager_add_object(struct pager *p, int fd, uint64_t size);
/* The pages of source number @source that are listed in [start, end) are missing in @object from @offset on.
 */
void pager_add_shared(struct pager *p, size_t source, size_t object, uint64_t start, uint64_t end,
		      uint64_t offset);
/* What of the memory of the one added last was backed by huge pages: it will be again, when all is there. */
void pager_set_huge(struct pager *p, const uint64_t *pairs, size_t n);
/* Write the state to @path, and make sure of a holder. From here on the death of this process loses nothing.
 */
int pager_write(struct pager *p, const char *path, struct error *e);
/* The holder was killed: another one. It stays in the cgroups of the tree, so that it ends with it and not
 * with whoever started it. */
int pager_check_holder(struct pager *p, struct error *e);
/* Go on where another process ended. -ENOENT: there is nothing at @path. */
int pager_open(struct pager **ret, const char *path, struct error *e);
/* Is there a state at @path of which pages are still missing? */
bool pager_is_left(const char *path);
/* Nothing of that tree will ever run: the holder and the file go. */
void pager_discard(const char *path);
/* Nothing is missing any more: one huge page is put together where there was one. True: there may be more. */
bool pager_make_huge(struct pager *p);
/* Nothing is missing any more: descriptors and holder go. The file stays, and says so, until it is discarded.
 */
void pager_finish(struct pager *p);
/* Does the file at @path say so? */
bool pager_is_finished(const char *path);

/* Read what the programs tell, and do what needs no source. */
int pager_read(struct pager *p, struct error *e);
/* Threads that wait, seen since the last call: each mark of a source once. */
int pager_faults(struct pager *p, int (*ask)(void *ctx, size_t source, uint64_t mark, struct error *e),
		 void *ctx, struct error *e);
/* Content has come. @data NULL: zeros. Latencies of faults it answers go to @latency (ns). */
int pager_place(struct pager *p, size_t source, uint64_t mark, size_t n, const void *data,
		void (*latency)(void *ctx, uint64_t ns), void *ctx, struct error *e);
/* Memories that ended are noticed only when something is placed there, or here. */
void pager_look_for_ended(struct pager *p);

/* --- between the files ------------------------------------------------------------------------------ */
/* holder.c: a process that shares our table of descriptors and outlives us. Its pid, or -errno. */
pid_t holder_start(const char *path, struct error *e);
/* Descriptors of shared memory that the state names; malloc'ed. */
size_t pager_object_fds(const char *path, int **ret);
/* pager_shared.c: content into an object. A fault in a view of one; a thread that waited for it. */
int pager_place_shared(struct pager *p, size_t space, uint64_t mark, size_t n, const char *data,
		       struct error *e);
int pager_shared_fault(struct pager *p, const struct pager_read *f, uint64_t object, uint64_t offset,
		       int (*ask)(void *ctx, size_t source, uint64_t mark, struct error *e), void *ctx,
		       bool *ret_again, struct error *e);
int pager_answer_shared(struct pager *p, const struct pager_fault *f, struct error *e);
/* 1: @addr is in a view of that object; 0: not as far as is known; -EAGAIN: events have to be read first. */
int pager_view_at(struct pager *p, size_t space, uint64_t addr, uint64_t *ret_object, uint64_t *ret_offset);
/* The same of memory that the books do not know: is it shared? */
int pager_may_be_shared(const struct pager *p, size_t space, uint64_t addr);
/* Is all of [start, end) one mapping that reports faults to @uffd? 1, 0, or -EAGAIN. */
int pager_reports(int uffd, uint64_t start, uint64_t end);
void pager_objects_free(struct pager *p);
/* pager.c */
void pager_end_space(struct pager *p, size_t space);
/* pager_file.c */
void pager_mark_placed(struct pager *p, size_t source, uint64_t mark);
bool pager_names_holder(const char *path, pid_t pid);
void pager_end_holder(struct pager *p);
/* It is ours, and was killed. */
void holder_reap(pid_t pid);
/* pager_place.c */
size_t pager_together(const struct missing *m, size_t space, uint64_t mark, size_t n, uint64_t *ret_addr);
int pager_behind(struct pager *p, struct error *e);
void pager_note_waiting(struct pager *p, const struct pager_fault *f);
int pager_give_zeros(struct pager *p, size_t space, uint64_t addr, bool *ret_again, struct error *e);
/* pager_read.c: threads that wait there look again. */
void pager_wake(int uffd, uint64_t start, uint64_t length);
void pager_wake_all(int uffd);
void pager_add_pending(struct pager *p, const struct pager_event *ev);
/* Into the books with those of @space that wait. */
void pager_take_for_settled(struct pager *p, size_t space);
/* What came of an attempt to place pages. */
enum pager_placed {
	PAGER_PLACED,
	PAGER_THERE,  /* it is there already */
	PAGER_GONE,   /* not mapped there any more, or not ours */
	PAGER_ENDED,  /* that memory is gone */
	PAGER_BEHIND, /* events have to be read first */
};
enum pager_placed pager_what_failed(int code);
/* What an attempt to place pages would come to: BEHIND, ENDED, or another one. Without an effect. */
enum pager_placed pager_look(int uffd);
/* events.c: what one memory told, in the order in which it was read, into the books; *n > 0. What is not yet
 * in the books is left in @msgs and *n.  *ret_looked: it could only be understood by looking at what the
 * memory is now, so that it must be written down at once.  -EAGAIN: more has been done meanwhile; nothing has
 * changed. */
enum pager_known {
	PAGER_SETTLED, /* all that had been done to that memory when the last of @msgs had been read */
	PAGER_REPLAY,  /* the same at another time: not to be looked at */
	PAGER_SOME,    /* threads are about to tell more: the first half is taken */
};
int pager_apply(struct pager *p, size_t space, struct uffd_msg *msgs, size_t *n, enum pager_known known,
		bool *ret_looked);
