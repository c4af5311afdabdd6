/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Memory: layout (VMAs), shared memory objects, and pages in rounds.
 *
 * Source:       struct memory holds what is known of every process between rounds; process->data is its
 *               struct memory_process.
 * Destination:  layout.c turns the difference between two layouts into batches; objects have a host
 * descriptor.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/page_set.h"
#include "proto/memory.pb-c.h"
#include "state/kind.h"
#include "stream/stream.h"
#include "track/backend.h"
#include "track/hashes.h"

typedef Ferry__ObjectKind ObjectKind;

/* Of a target that is only observed: pages written in the interval at hand, and since the beginning. */
struct page_use {
	struct page_set now, ever;
};

/* A shared memory object (shared anonymous memory, memfd) or a deleted file that is mapped. */
struct memory_object {
	uint64_t id;
	Ferry__ObjectKind kind;
	uint64_t dev, ino, size;
	uint64_t huge_page_size; /* of hugetlb memory; 0: ordinary pages */
	char *name;
	uint32_t seals, mode, uid, gid;
	Ferry__SysvSegment *sysv;  /* of OBJECT_SYSV */
	Ferry__FileIdentity *file; /* of OBJECT_TMPFS */
	int fd;                    /* ours, an open file description of its own */
	struct page_set dirty;     /* offsets written since the last round, as mappings tell */
	struct page_set unsure;    /* the part of it that no mapping told */
	struct page_set sent;
	struct page_hashes *hashes; /* of what was sent */
	struct page_use use;
	bool untracked;    /* in this round: a mapping of it is */
	unsigned rest;     /* rounds till it is compared again as a whole */
	bool constant;     /* sealed, and looked at as a whole since */
	bool settled;      /* it was compared since the freeze */
	bool sure;         /* since it was compared last, mappings tell all that is written (sure.c) */
	bool ready;        /* to be compared in this round, and sure from then on */
	bool quiet, alone; /* of sure.c: nothing untold since the last round; nobody outside has it */
	uint64_t mapped, mapped_now, n_mapped; /* of sure.c: a hash of who maps it where */
	uint64_t noisy;                        /* ns: when it was not quiet last */
	int watch;                             /* of holders.c; 0: none */
	bool opened;                           /* since it was asked last, as far as it is watched */
	bool asked, held;                      /* of the look at all descriptors */
	unsigned looks;                        /* of these one after the other that found none of it */
	uint64_t collected;                    /* ns: when a mapping of it was protected last */
	struct page_set young;                 /* read too soon after that: to be read again */
	uint64_t young_since;                  /* ns: when the last of them were protected */
	bool has_fd;          /* a descriptor of it has been seen in the tree, or on its way in a socket */
	struct page_set keep; /* post-copy: offsets that go along */
	struct page_set left; /* post-copy: offsets that stay behind */
	uint64_t stat_stamp;  /* mtime, ctime, blocks and size in one hash at the last round; 0: never read */
};

/* What one round does with one private VMA. Filled in by memory_collect, completed by memory_resolve, used up
 * by memory_send. */
struct page_plan {
	uint64_t start, end;
	size_t unit; /* bytes that are read and sent together: of one page */
	bool private_file;
	struct page_set written; /* counts as written since the last round */
	struct page_set unsure;  /* the part of it that is only suspected */
	struct page_set present; /* the part of it that has a page, as a final answer told */
	struct page_set absent;  /* the part of it that has none, as a final answer told */
	struct page_set again;   /* the part of it that was not written, but was young */
	struct page_set go;      /* to be read and sent */
	struct page_set drop;    /* was sent, and is no longer there */
};

#define SENTINELS 8

struct memory_process {
	pid_t pid;
	pid_t living; /* process_living() */
	int mem_fd, pagemap_fd;
	int pidfd;                     /* the process's own */
	int living_fd;                 /* process_living_fd() */
	bool swapped;                  /* some of it is in swap, at the last look */
	uint64_t faults, faults_at;    /* of swapped.c: major faults, and when they were counted (ns) */
	char *auxv;                    /* owned; before its memory was opened */
	size_t auxv_length;            /* bytes */
	struct dirty_session *session; /* NULL: not tracked */
	bool shows_uw;                 /* tracking itself makes VMAs write-protected */
	Ferry__Mm *mm;                 /* layout of the last look */
	bool unseen_writes; /* devices may write its memory behind the page tables: all of it goes again,
			       frozen */
	bool mm_changed;    /* since it was last put into the stream */
	bool fresh;         /* of the engine: the other side has nothing of this process yet */
	pid_t placed_under; /* of the engine: its parent at the other side; 0: none yet */
	bool stale;         /* of the engine: the memory we have open is gone (exec) */
	bool void_before;   /* of the engine: what was sent of this pid belongs to a program that is gone */
	bool want_flags;    /* the next look reads VmFlags anew (smaps), if it is time for that */
	uint64_t flags_at;  /* when they were last read (ns, now_ns), and how long that took */
	uint64_t flags_ns;
	void *region;              /* of the engine: the parasite while state is captured (struct region) */
	void *seen;                /* of mm.c: maps as last read */
	struct page_set armed;     /* ranges that the backend tracks */
	struct page_set sent;      /* pages whose last known content the other side has */
	struct page_set unread;    /* collected as written, but reading failed (racing with munmap) */
	struct young_pages *young; /* of young.c */
	size_t n_young;
	uint64_t collected;         /* ns: when pages were protected last */
	struct page_set huge;       /* transparent huge pages, also those that tracking has split */
	struct page_hashes *hashes; /* of what was sent, of young pages at least; NULL: none kept */
	struct page_plan *plan;     /* of the round being made */
	size_t n_plan;
	struct page_use use;
	uint64_t sentinels[SENTINELS]; /* pages that would tell of a fork (forks.c) */
	unsigned n_sentinels;
	struct page_set unmapped; /* of the round being made: was sent, and is no longer mapped */
	struct page_set left; /* post-copy: pages that stay behind when the target starts at the other side */
	struct page_set left_shared; /* the same, of shared memory: under the address that it has here */
};

struct memory;
/* Calls of other processes that hold pages they are about to write (callers.c): all that were in progress at
 * the time that is returned (ns) have ended. Looks at all threads when it is time, if @wanted is later. */
uint64_t callers_gone(struct memory *m, uint64_t wanted);
struct callers;
void callers_free(struct callers *c);

/* Young pages (young.c), where calls that were in progress at @gone have ended: is what is read now young;
 * note it; move to *@ret (initialised) what is to be looked at again in [start, end): what is no longer
 * young, or all; forget what the other side no longer has. */
bool young_is(const struct memory_process *mp, uint64_t gone);
void young_add(struct memory_process *mp, uint64_t start, uint64_t end);
void young_take(struct memory_process *mp, uint64_t gone, uint64_t start, uint64_t end, bool all,
		struct page_set *ret);
void young_forget(struct memory_process *mp, const struct page_set *set);
void young_free(struct memory_process *mp);

/* VmaFlag: registered with a userfaultfd of the program's own. */
#define VMA_UFFD_ANY \
	(FERRY__VMA_FLAG__VMA_UFFD_MISSING | FERRY__VMA_FLAG__VMA_UFFD_WP | FERRY__VMA_FLAG__VMA_UFFD_MINOR)

struct round_stats {
	uint64_t pages;        /* read and sent, 4 KiB each */
	uint64_t bytes;        /* of pages sent */
	uint64_t object_bytes; /* the part of them that is of shared memory which never stays behind */
	uint64_t dropped;      /* pages */
	uint64_t zero;
	uint64_t shared;     /* pages that went as those of another process */
	uint64_t same;       /* pages that were written, or suspected, and equal to what was sent last */
	uint64_t copied;     /* of the pages that were sent: as copies of others */
	uint64_t collect_ns; /* time of the first phase alone */
	uint64_t freeze_ns;  /* how long the target stood for this round */
	uint64_t in_swap;    /* bytes that were not read, as they are in swap (swapped.c) */
};

struct memory {
	struct backend backend;   /* ops NULL: no tracking */
	struct tree *tree;        /* whose processes are followed; NULL: not looked at yet */
	bool asked;               /* since the freeze: memory_objects_ask */
	int inotify;              /* of holders.c; -1: none */
	struct callers *callers;  /* of callers.c */
	uint64_t holders_next;    /* ns: not before */
	uint64_t anonymous_mount; /* of holders.c; 0: not known */
	struct memory_object **objects;
	size_t n_objects;
	uint64_t next_id;
	uint64_t max_bandwidth; /* bytes/s while rounds run; 0: unlimited */
	uint64_t budget_start, budget_bytes;
	uint64_t max_map_count; /* VMAs a process may have */
	uint8_t *buffer;        /* STREAM_MAX_RUN */
	bool userfaults;        /* the tree has userfaultfds of its own: every look reads VmFlags anew */
	bool pinned;            /* the tree has memory that an io_uring has pinned (registered buffers) */
	bool userfaults_seen;   /* the last look at all of the tree did so */
	bool one_process;       /* so it was at the last look at all of the tree */
	uint64_t swap_busy;     /* ns: till then the tree is one that always fetches pages from swap */
	bool may_leave;         /* post-copy: the other side can start with shared memory missing */
	bool leaves;            /* ... and so it is in this round, the last one */
};

struct memory *memory_new(void);
void memory_free(struct memory *m);

/* Begin to follow a process: opens /proc files. With a backend the process must be stopped (saved tasks): its
 * session is made through @leader. */
int memory_attach(struct memory *m, struct process *p, struct error *e);
int memory_track(struct memory *m, struct process *p, struct task *t, struct error *e);
/* Has the process executed no other program since memory_attach() began? (Told by /proc/PID/auxv, whose
 * addresses are random: where they are not, a program that executes itself is taken for the same.) */
bool memory_same_program(const struct memory_process *mp);
/* End tracking; the target is left as if never tracked. Frees p->data. */
void memory_detach(struct memory *m, struct process *p);

/* Look at the layout again (target running or stopped): fills p->data->mm; refuses mappings that cannot be
 * moved (names pid and address). *ret_exec is set when the process has exec'ed since the last look:
 * everything known of it is void. */
int memory_look(struct capture *c, struct process *p, bool *ret_exec, struct error *e);
/* Between the collect of a round and its send: may devices write memory of @p unseen?  Sets its unseen_writes
 * (for good). Returns 1 when it was set just now. */
int memory_find_unseen_writes(struct process *p);
/* May this io_uring have registered buffers? */
bool memory_has_fixed_buffers(pid_t pid, int fd);
/* Refuse pages that the kernel writes for good. */
int memory_check_pins(struct process *p, struct error *e);
/*
 * One round over one process, in three phases; the engine makes each phase for all processes before the next.
 * @final: target stopped, everything that differs from what was sent must go.
 *
 * memory_collect   which pages were written, and arm them again. Target stopped unless the backend can do
 * that with a running one. -ESRCH: not this memory any more (exited, or exec) memory_resolve   which of them
 * are to be read and which are gone. -ESRCH likewise memory_send      read and send; what is sent is what is
 * there now
 */
int memory_collect(struct memory *m, struct process *p, bool final, struct error *e);
int memory_resolve(struct process *p, bool final, struct error *e);
int memory_send(struct memory *m, struct process *p, struct stream_out *out, bool final,
		struct round_stats *st, struct error *e);
/* Between resolve and send of the final round: pages that need not go before the target runs at the other
 * side are taken out of the plan, and dropped there; not those of @keep. They are added to @ret. (leave.c) */
void memory_leave(struct memory *m, struct process *p, const struct page_set *keep, struct page_set *ret);
bool memory_may_stay(const Ferry__Vma *v);
/* leave_shared.c: the same for shared memory: what of @go stays is taken out of it, and so is what the other
 * side has already (of what is only suspected, or @again). */
bool memory_shared_may_stay(const Ferry__Vma *v);
bool memory_object_may_stay(const struct memory *m, const struct memory_object *o);
int memory_object_leave(struct memory *m, struct memory_object *o, struct page_set *go,
			const struct page_set *again, struct error *e);
/* All descriptors are known: what must not stay behind after all goes now. */
int memory_objects_unleave(struct memory *m, struct stream_out *out, struct round_stats *st, struct error *e);
/* shared.c: read and send. */
int memory_object_put(struct memory *m, struct memory_object *o, struct stream_out *out,
		      const struct page_set *set, struct round_stats *st, struct error *e);
/* What a thread, and the kernel for it, touches at once: around its stack and thread pointers; one page. */
void memory_keep_of_thread(struct page_set *s, uint64_t sp, uint64_t tp);
void memory_keep_page(struct page_set *s, uint64_t addr);
/* Pages of @part that are to go in this round go now. */
int memory_send_part(struct memory *m, struct memory_process *mp, const struct page_set *part,
		     struct stream_out *out, bool final, struct round_stats *st, struct error *e);
/*
 * In place of memory_send and memory_objects_round, for a target that is only observed: the pages count as
 * sent, and as written in `use`; nothing is read but where the backend is unsure. (note.c)
 */
uint64_t memory_note(struct memory *m, struct process *p); /* bytes that were written */
int memory_objects_note(struct memory *m, uint64_t *ret_bytes, struct error *e);
/* What was written now belongs to what was written ever; of the first look (@baseline) that is not known. */
void memory_end_interval(struct memory *m, struct tree *t, bool baseline);
struct memory_use {
	uint64_t memory;    /* bytes: populated, as far as it is followed */
	uint64_t now, ever; /* written */
	uint64_t untracked; /* populated, but not followed: the frozen pass copies it */
	uint64_t vmas;
};
void memory_sum_use(struct memory *m, struct tree *t, struct memory_use *ret);
void page_use_deinit(struct page_use *u);
/* Between the looks at @old and @now something else was mapped at an address that was armed. When exactly is
 * not known: it may have been before the last collect, which then armed the new memory and took what was in
 * it for that of the old.  So it is not armed as far as we know, and counts as written. */
void memory_forget_replaced(struct memory_process *mp, const Ferry__Mm *old, const Ferry__Mm *now);
/* Drop what the phases have made so far. */
void memory_plan_clear(struct memory_process *mp);
/* Does the backend suspect pages, so that hashes of what is sent are worth keeping? (Of a process with unseen
 * writes they always are.) */
bool memory_keeps_hashes(const struct memory *m);
/* Must the target stand still while the backend collects? */
bool memory_stops_target(const struct memory *m);
/* The same for shared objects, after memory_send of all processes. */
int memory_objects_round(struct memory *m, struct stream_out *out, bool final, struct round_stats *st,
			 struct error *e);
/* What of the object is to go, and what of that which was sent is gone (both initialised). 1; 0: nothing was
 * written; or -errno. */
int memory_object_changes(struct memory *m, struct memory_object *o, bool final, struct page_set *ret_go,
			  struct page_set *ret_gone, struct error *e);
/* sure.c: asks about the time since the last call; fills in `quiet`, `ready` and `sure` of all objects. */
void memory_objects_ask(struct memory *m, bool final);
/* Frozen: what was written to those that are sure, into `dirty`. */
void memory_objects_collect(struct memory *m);
/* holders.c: what became known of objects that are watched, into `opened`; watch one (false: cannot be); look
 * for descriptors of all that are `asked`, into `held` and `looks` (false: not yet, it would take too much
 * time). */
#define HOLDERS_LOOKS 2 /* that find none, in different rounds, before there is none */
void holders_listen(struct memory *m);
bool holders_watch(struct memory *m, struct memory_object *o);
bool holders_look(struct memory *m);
/* swapped.c: what is in swap stays there, although it is read: with the look at the layout, and as pread(2).
 */
void swapped_look(struct memory_process *mp);
ssize_t memory_read(const struct memory_process *mp, void *data, size_t length, uint64_t addr);
/* While the target runs: how many bytes from @addr on are in swap and must stay there for now. 0: none, and
 * *length is what may be read before the next such page. */
/* Frozen, before such pages are read: room for them. */
void swapped_make_room(const struct memory *m, const struct memory_process *mp);
size_t swapped_leave(struct memory *m, struct memory_process *mp, uint64_t addr, size_t *length);
/* gather.c: read some of @n ranges into @m's buffer, one after the other, in one call. Returns how many, from
 * the first on, have been read whole; 0 where that is not possible. Target stopped or running. */
size_t memory_gather(const struct memory *m, const struct memory_process *mp, const struct page_range *r,
		     size_t n);
/* forks.c: certainly none since the last call (and at the first one nothing is known). */
bool forks_none(struct memory_process *mp);
/* Between the collect of a round and its send. */
void forks_drop_written(struct memory_process *mp);
/* The target was frozen just now: what was known of objects may have changed. */
void memory_objects_frozen(struct memory *m);
/* All objects as a message for the stream. malloc'ed tree. */
Ferry__Objects *memory_objects_message(const struct memory *m);

void mm_seen_free(void *seen);
/* own_flags.c: VmFlags that our own tracking shows, and not the program's. */
struct proc_maps;
void memory_clear_own_flags(const struct memory *m, const struct memory_process *mp, struct proc_maps *maps);
struct memory_object *memory_object(const struct memory *m, uint64_t id); /* or NULL */
/* Id of the object that this file, of a descriptor of the tree, is, or 0. */
uint64_t memory_object_find(const struct memory *m, uint64_t dev, uint64_t ino);

/* The object behind a descriptor (@fd: the caller's) or a map_files link opened by the caller; registered on
 * first sight. @name: without "/memfd:" and " (deleted)". */
int memory_object_of_fd(struct capture *c, int fd, Ferry__ObjectKind kind, const char *name, uint64_t *ret_id,
			struct error *e);

/* --- destination ---------------------------------------------------------------------------------- */
/* Make the object, or find it: a host descriptor, and enum object_origin (named.h) as result. */
int object_create(const Ferry__Object *o, int *ret_fd, struct error *e);
/* Write content (@data NULL: none, make a hole) into the descriptor of an object; @huge: of hugetlb memory.
 * 0 or -errno. */
int object_write(int fd, bool huge, const void *data, uint64_t length, uint64_t offset);
/* When all content is there: exact size, seals, name. */
int object_finish(const Ferry__Object *o, int fd, struct error *e);
/* The rebuild failed: what was made and would outlast it goes. */
void object_discard(const Ferry__Object *o, int fd);

/* Append to batches what changes layout @old (NULL: nothing is mapped but the region) into @new. @run is
 * called with each full batch and at the end. */
struct layout_target {
	int (*run)(void *ctx, struct batch *b, struct error *e);
	int (*object_fd)(void *ctx, uint64_t id); /* host descriptor of an object, or -1 */
	void *ctx;
	uint64_t region_start, region_end; /* must stay */
	pid_t pid;                         /* for messages */
};
int layout_apply(const struct layout_target *t, const Ferry__Mm *old, const Ferry__Mm *new, struct error *e);
/* Append PR_SET_MM_MAP with the numbers of @mm; @exe_entry: batch entry whose result is a descriptor of the
 * program file, or -1. */
void layout_set_numbers(const Ferry__Mm *mm, struct batch *b, int exe_entry);
/* Append what can only be done when all contents are there. */
void layout_finish(const Ferry__Mm *mm, struct batch *b);
/* True when @new cannot be reached from @old piece by piece (another program was exec'ed): start from
 * nothing. */
bool layout_is_other_program(const Ferry__Mm *old, const Ferry__Mm *new);
/* The kernel's own mappings: vdso, vvar. */
bool layout_is_special(const Ferry__Vma *v);
/* Does something else than the layout make it (a descriptor, a context of AIO)? */
bool layout_is_ring(const Ferry__Vma *v);
/* Where private memory of layout @a is still the same in layout @b. @fork: also after a fork, in the child.
 */
void layout_common(const Ferry__Mm *a, const Ferry__Mm *b, bool fork, struct page_set *ret);
/* The layout of a child that was just cloned from a process with layout @mm. malloc'ed tree. */
Ferry__Mm *layout_of_clone(const Ferry__Mm *mm);
/* Does [start, end) overlap a VMA of @mm? */
bool layout_overlaps(const Ferry__Mm *mm, uint64_t start, uint64_t end);
/* The files a layout maps: there, and the same as at the source? @running: as far as it can be told while the
 * target may write them. */
int layout_check_files(const Ferry__Mm *mm, pid_t pid, bool running, struct error *e);

/* --- hugetlb -------------------------------------------------------------------------------------- */
#define HUGETLB_2MB (21 << 26) /* MAP_HUGE_2MB, MFD_HUGE_2MB */
/* Size of the pages behind a descriptor, 0 for ordinary ones. Refuses sizes other than 2 MiB. */
int hugetlb_page_size(int fd, uint64_t *ret, struct error *e);
/* Are the huge pages there that the layouts and objects of @s need? */
int hugetlb_check_free(const struct snapshot *s, struct error *e);
/* Private memory whose pages come from the pool. */
bool hugetlb_is_private(const Ferry__Vma *v);

/* Target frozen: wait until no request of asynchronous I/O (io_submit) is under way. */
int aio_wait_idle(struct capture *c, struct error *e);
/* Are requests of it under way? If in doubt they are. */
bool aio_is_busy(const struct memory_process *mp);

extern const struct state_kind kind_mm, kind_objects, kind_aio;
