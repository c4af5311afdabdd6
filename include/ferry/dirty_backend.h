/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The ABI between Ferry and a dirty-tracking backend: a shared object that tells which pages of a process
 * were written since it was last asked.  A backend is one file, FERRY_LIBDIR/backends/NAME.so, that exports
 *
 *	const struct dirty_backend_ops *ferry_dirty_backend(void);
 *
 * The one rule: never a false negative.  If in doubt a page is dirty.
 *
 * One session follows one process. Its life, with "stopped" meaning that no thread of the target runs:
 *
 *	probe                             no target
 *	attach                            stopped: the leader at least
 *	  begin ROUND                     from here to `end` running if DIRTY_CAP_RUNNING, else stopped
 *	    arm or collect                once for each piece of memory, ascending
 *	  end ROUND
 *	  (the target runs; its pages are read and copied; then the next begin)
 *	  begin FINAL                     stopped, and it stays so
 *	    collect                       for each piece that is armed
 *	  end FINAL
 *	detach                            at any time after attach: running, stopped or gone
 *
 * A final pass may be followed by more rounds, when the target was let go after all.
 *
 * Threads: all calls for one session come from one host thread, the one that traces the target; different
 * sessions may be in different processes, never in different threads at once.  A backend may have threads of
 * its own, with all signals blocked, which end with its last session. Units: addresses and lengths are bytes,
 * page aligned; [start, end). Results: as documented at each slot, or a negative errno with a
 * sentence in @why (at most @why_size bytes with its NUL; untouched on success; it should name the process
 * and the address).  A result that is not documented is taken for -EIO.  A backend never writes to stdout or
 * stderr, never ends the process, and leaves signal handlers alone.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FERRY_DIRTY_BACKEND_ABI 5

/* Capabilities (struct dirty_backend_ops.caps) */
#define DIRTY_CAP_RUNNING    (1u << 0) /* rounds may be made while the target runs, and lose nothing */
#define DIRTY_CAP_PAGE_EXACT (1u << 1) /* reports single pages, not whole VMAs or huge pages */
#define DIRTY_CAP_KEEPS_THP  (1u << 2) /* does not split transparent huge pages */
#define DIRTY_CAP_UNSURE     (1u << 3) /* may answer DIRTY_UNSURE: the caller does well to keep hashes */
#define DIRTY_CAP_SHOWS_UW                                                                              \
	(1u << 4) /* what it tracks shows the flag uw (userfaultfd write protection) in smaps; what the \
		     program protects itself is then refused by arm */

enum dirty_vma_kind {
	DIRTY_VMA_ANON = 0,           /* private anonymous: heap, stack, /dev/zero */
	DIRTY_VMA_PRIVATE_FILE = 1,   /* MAP_PRIVATE of a file, memfd, shared memory */
	DIRTY_VMA_SHARED = 2,         /* MAP_SHARED of anything but huge pages */
	DIRTY_VMA_HUGETLB = 3,        /* MAP_PRIVATE of huge pages (hugetlbfs, MAP_HUGETLB) */
	DIRTY_VMA_SHARED_HUGETLB = 4, /* MAP_SHARED of huge pages */
};
#define DIRTY_KIND(kind) (1u << (kind)) /* bits of struct dirty_backend_ops.kinds */

/* A VMA, or a part of one, as the caller knows it from /proc/PID/maps. The target may have changed it since.
 */
struct dirty_vma {
	uint64_t start, end;
	uint32_t kind; /* enum dirty_vma_kind */
	uint32_t reserved;
};

/* One answer of collect, in ascending order of addresses, not overlapping, not empty, inside the piece asked
 * for. */
struct dirty_range {
	uint64_t start, end;
	uint32_t flags;
	uint32_t reserved;
};
#define DIRTY_WRITTEN (1u << 0) /* written (or dropped) since last armed: content must be looked at again */
#define DIRTY_PRESENT                                                                                     \
	(1u << 1) /* final collect only: populated (in memory or in swap); not set on a written range: it \
		     has no page now (zero for anonymous memory, file content for private file maps); the \
		     zero page of anonymous memory counts as none */
#define DIRTY_UNSURE                                                                                     \
	(1u << 2) /* only beside DIRTY_WRITTEN: nothing says that it was written, and nothing that it    \
		     was not. A caller with a hash of what it copied last may read the page, compare and \
		     leave it if it is equal; one without takes it for written. */

enum dirty_collect_mode {
	DIRTY_ROUND = 0, /* report what was written and arm it again. With DIRTY_CAP_RUNNING atomically for
			    each page: no write falls between the two. */
	DIRTY_FINAL =
		1, /* target stopped, nothing needs arming. Every written range carries exact DIRTY_PRESENT;
		      for kinds where drops can be missed (private file, hugetlb) the complete populated set
		      is reported, written or not, so that the caller can find what was dropped. Elsewhere
		      a dropped page is a written range that is not present. */
};

struct dirty_session; /* the backend's own, one per process */

/* The target as attach sees it. System calls inside of it are run by the caller (which knows ptrace): returns
 * the call's result, or a negative errno when it could not be run. Pointers are addresses of the target. */
struct dirty_target {
	pid_t pid; /* process (a thread id when the leader is a zombie) */
	int pidfd; /* owned by the caller */
	void *ctx;
	int64_t (*syscall)(void *ctx, long nr, const uint64_t args[6]);
};

/* All pointers and strings live as long as the shared object is loaded. No slot may be NULL, but the last
 * three. */
struct dirty_backend_ops {
	uint32_t abi_version; /* FERRY_DIRTY_BACKEND_ABI */
	uint32_t size;        /* sizeof(struct dirty_backend_ops) */
	const char *name;     /* that of the file, without .so */
	const char *summary;  /* one line for people */
	uint32_t caps;        /* DIRTY_CAP_* */
	uint32_t priority;    /* for --backend auto: highest that probes well is taken */
	uint32_t kinds; /* DIRTY_KIND()s that can be tracked; others are never armed and count as dirty */
	uint32_t reserved;

	/*
	 * Does it work on this kernel, for this caller?  Before anything else, and again at any time; also
	 * for `ferry check`, which measures by itself what a session costs.  Touches no other process; finds
	 * out by experiment in own memory, not by version. 0; or -errno with the reason, in words that a user
	 * understands.
	 */
	int (*probe)(char *why, size_t why_size);
	/*
	 * Begin a session.  Once per process, and again after an exec.  Target: the thread that runs system
	 * calls is stopped, others may run.  @t and its members stay valid only during the call, pid and
	 * pidfd till detach.  Nothing is tracked yet. 0 and *ret (the backend's until detach); or -errno:
	 * nothing is left in the target.
	 */
	int (*attach)(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size);
	/*
	 * A round, or the final pass, over this process begins.  A backend that can only look at the whole
	 * memory at once does it here and answers from that in collect.  Target as above. 0; -ESRCH: the
	 * process has ended or called exec; other -errno: everything counts as dirty and must be armed again
	 * (arm and end are called, collect is not).
	 */
	int (*begin)(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size);
	/*
	 * Track one piece from now on, or anew.  Only in rounds.  All of it counts as written in this round,
	 * whatever the backend knows; it is armed when `end` returns, at the latest, and must be before the
	 * caller reads it.
	 * 0: tracked; 1: cannot be tracked (now): it always counts as dirty, arm is tried again in the next
	 * round; -ESRCH: the process has ended or called exec; other -errno: as 1.
	 */
	int (*arm)(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size);
	/*
	 * What was written in @v, a piece that was armed (or a part of one, or several side by side), since
	 * arm or the last round.  *ret_ranges is the backend's, valid until the next call for this session.
	 * Pages that were not written are in no range (but see DIRTY_FINAL). The number of ranges, 0 for
	 * nothing; -EPERM: @v is not what was armed, or not wholly: it counts as dirty and is armed anew;
	 * -ESRCH: the process has ended or called exec; other -errno: as -EPERM.
	 */
	ssize_t (*collect)(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
			   const struct dirty_range **ret_ranges, char *why, size_t why_size);
	/*
	 * All pieces of this round were armed or collected.  A backend that can only arm the whole memory at
	 * once does it here: what was written before this round's collect calls was told by them, what is
	 * written after `end` must be told by the next round.  Target as in begin: it was not let go in
	 * between. 0; -ESRCH: the process has ended or called exec; other -errno: nothing is armed any more,
	 * everything counts as dirty in the next round.
	 */
	int (*end)(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size);
	/*
	 * End the session; the target (running or stopped, or gone) is left as if never tracked.  NULL is
	 * fine. Also between begin and end, after any error.
	 */
	void (*detach)(struct dirty_session *s);
	/*
	 * May be NULL: never.  Of the pieces of shared memory (DIRTY_VMA_SHARED) of this process: does
	 * collect tell all writes through them, and through whatever the process made of them (mremap), and
	 * was that so ever since the last call?  Then, and if nobody else can reach the memory, the caller
	 * takes the answers of collect for the whole truth, in the final pass too, where a range that has no
	 * page counts as written.  Not so when a piece was armed since, or was not what had been armed; when
	 * pages were taken away from under it (MADV_REMOVE), ever.  Once in each round, after its `end`, or
	 * in the final pass before its `begin`.  1 or 0.
	 */
	int (*shared_sure)(struct dirty_session *s);
	/*
	 * May be NULL: always.  The caller has read [start, end), of pieces of this round, since its `end`,
	 * with the target running: was that the memory this round's answers were about?  For backends that
	 * would not know if it was moved away and back between two rounds: what is read meanwhile is other
	 * memory's. 1; 0: what was read is worth nothing, it must be read again in the next round or pass,
	 * whatever collect says.
	 */
	int (*still_there)(struct dirty_session *s, uint64_t start, uint64_t end);
	/*
	 * May be NULL: never.  @v, one whole VMA that shows the flag uw, is not what was armed (as far as the
	 * caller knows): does it show it because of this session all the same, or because of the program? A
	 * mapping may have moved and taken its registration along, or be what is left of one that grew.  For
	 * backends with DIRTY_CAP_SHOWS_UW.  Target running or stopped, at any time between passes.  1: of
	 * this session; 0: not, or not known.
	 */
	int (*owns)(struct dirty_session *s, const struct dirty_vma *v);
};

__attribute__((visibility("default"))) const struct dirty_backend_ops *ferry_dirty_backend(void);
