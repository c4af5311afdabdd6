/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Open files of a tree: what the engine needs besides the kinds, and what the files of this folder share.
 *
 * Source: `struct files_capture` (capture.files) says which description each number of each process is.  It
 * is made anew by every scan; only the texts of links outlive one, so that a scan of the frozen tree need not
 * read them again. Destination: `struct files_rebuild` (rebuild.files) holds the host's descriptor of every
 * description.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "proto/files.pb-c.h"
#include "state/files/fd_type.h"
#include "state/files/stock.h"
#include "state/kind.h"
#include "state/patience.h"

extern const struct state_kind kind_files, kind_fdtable, kind_fs, kind_locks, kind_terminal;

/* --- for the engine ----------------------------------------------------------------------------------- */
/* How many descriptors a process has open. */
size_t files_count(pid_t pid);
/* Drop what capture keeps in c->files and c->sockets. Copies of target descriptors are never kept beyond a
 * call. */
void files_capture_free(struct capture *c);
/* There is an image: what was made for it in the file system stays. */
void files_capture_keep(struct capture *c);
/* The target goes on here: put back what had to be taken from it to be captured. It still stands. */
int files_capture_undo(struct capture *c, struct error *e);
/* Close the host's descriptors (the target's own are in place) and drop r->files and r->sockets. @started:
 * the tree runs, what it replaced (names of sockets on a shared file system) is gone for good; otherwise that
 * is put back. NULL-safe. */
void files_rebuild_free(struct rebuild *r, bool started);

/* --- within state/files and state/sockets --------------------------------------------------------------- */
/* Hash of 64-bit pairs to an index: open addressing, no removal. */
struct index_map {
	struct index_slot {
		uint64_t a, b;
		uint32_t value; /* index + 1, 0: free */
	} * slots;
	size_t n, size; /* size: 0 or a power of two */
};
/* Value slot of the pair, 0 for a new one (set it to index + 1). Valid until the next call. */
uint32_t *index_map_at(struct index_map *m, uint64_t a, uint64_t b);
uint32_t index_map_find(const struct index_map *m, uint64_t a, uint64_t b);
void index_map_deinit(struct index_map *m);

struct ofd {          /* an open file description */
	pid_t pid;    /* first holder; our own pid for an extra one */
	pid_t living; /* what that goes by in /proc (process_living) */
	int fd;       /* its number there */
	int extra;    /* our copy of one that is in no table, else -1 */
	struct stat st;
	int flags;
	int64_t pos;
	struct f_owner_ex owner;
	int signal;
	char *link;     /* owned; NULL for pipes and sockets */
	bool path_ok;   /* stat(link) was seen to be this very file */
	pid_t seen_pid; /* for messages: of an extra one, the socket it was found in */
	int seen_fd;
};

/* Descriptions that (dev, ino, flags) do not tell apart, in the order of kcmp(2). */
struct ofd_bucket {
	uint32_t *v;
	size_t n, cap;
};

struct fd_slot {
	int fd;
	uint32_t ofd;
};

struct fd_table {
	pid_t pid, living;
	pid_t shared_with;
	struct fd_slot *fds; /* ascending */
	size_t n, cap;
};

struct link_cache {
	dev_t dev;
	ino_t ino;
	char *text;
};

struct pseudo_dev {
	bool pseudo;
	bool odd; /* stat(2) may show other numbers of device and inode than the kernel's own */
};

struct files_capture {
	bool frozen;    /* what was scanned was frozen */
	bool taken;     /* a final record was made of it */
	bool in_flight; /* descriptors may be queued in sockets of the running tree, where nobody has looked
			 */
	struct ofd *ofds;
	size_t n, cap;
	struct fd_table *tables;
	size_t n_tables, cap_tables;
	struct index_map by_pid; /* (pid, 0) -> tables */
	struct index_map by_key; /* (dev and flags, ino) -> buckets */
	struct ofd_bucket *buckets;
	size_t n_buckets, cap_buckets;
	struct index_map by_content; /* (hash of a table, its size) -> table_buckets */
	struct ofd_bucket *table_buckets;
	size_t n_table_buckets, cap_table_buckets;
	struct index_map by_ghost; /* (dev, ino) of deleted files -> id of their first description */
	struct index_map by_pipe;  /* (dev, ino) -> pipes */
	struct index_map bpf_maps; /* (id, 0) -> id of the map's first description */
	struct index_map mqueues;  /* (dev, ino) of POSIX message queues -> id of the first description */
	struct index_map mqueues_outside;  /* (dev, ino) -> pid of a holder outside the tree */
	bool mqueues_known;                /* it was looked for them */
	struct index_map eventfds_outside; /* (eventfd-id, 0) -> pid of a holder outside the tree */
	bool eventfds_known;               /* it was looked for them */
	struct pipe_seen *pipes;
	size_t n_pipes, cap_pipes;
	bool locks_read;         /* those of /proc/locks are in `locked` */
	bool locks_everywhere;   /* any file may have one that /proc/locks does not show */
	struct index_map locked; /* (device, inode) -> 1 */
	struct index_map ttys;   /* (index, 0) of pseudo-terminals whose master was seen */
	/* Outlive a scan. */
	struct remap *remaps; /* link_remap.c */
	size_t n_remaps, cap_remaps;
	bool keep_remaps;        /* an image needs them */
	struct drained *drained; /* tty.c */
	size_t n_drained, cap_drained;
	struct link_cache *links;
	size_t n_links, cap_links;
	struct index_map by_number; /* (pid, fd) -> links */
	struct index_map by_tid;    /* (tid, 0): seen to share table and directory with its process */
	struct index_map by_dev;    /* st_dev -> pseudo_devs */
	struct inode_paths *inode_paths;
	struct pseudo_dev *devs;
	size_t n_devs, cap_devs;
	Ferry__Files *warm; /* made by preflight, for the take_warm that follows */
	uint64_t warm_time, warm_for;
	size_t warm_objects; /* memory objects known then: they may be open too */
};

struct files_capture *files_capture_of(struct capture *c);
/* Forget a scan that is of another state of the tree (running, frozen) than it is in now, or that was used
 * up. */
void files_capture_refresh(struct capture *c);
void files_capture_reset(struct files_capture *f);
/* Numbers and descriptions of a process: scanned on first use. */
int files_table_of(struct capture *c, struct process *p, struct fd_table **ret, struct error *e);
/* Index of the description behind our own descriptor @copy, added if it is none of the known. */
int files_identify_copy(struct capture *c, int copy, uint32_t *ret, struct error *e);
/* Close the copies of those that are in no table. */
void files_drop_extra(struct capture *c);
/* Our own copy of the description; the caller closes it. */
int files_copy_of(struct capture *c, const struct ofd *o, struct error *e);
/* The kernel may know a file on this device by other numbers than stat(2) gives. */
bool files_dev_is_odd(struct capture *c, dev_t dev, const char *path);
/* Descriptors whose link @match accepts, of all processes outside of the tree but this one. */
void files_each_outside(struct capture *c, bool (*match)(const char *link),
			void (*each)(void *ctx, pid_t pid, int fd), void *ctx);
/* Files on this device are made up by the kernel when read (proc, sysfs...): size and time say nothing. */
bool files_dev_is_pseudo(struct capture *c, dev_t dev, const char *path);

/* --- destination --------------------------------------------------------------------------------------- */
struct rename_undo {
	char *path, *backup;
};

struct files_rebuild {
	const Ferry__Files *message; /* of the snapshot */
	uint32_t *places;            /* in the stock, per description; 0: not open */
	size_t n_places;
	struct fd_stock stock;
	bool checked; /* once is enough: opening compares again */
	struct index_map by_id;
	struct pipe_object *pipes;
	size_t n_pipes, cap_pipes;
	struct index_map pipe_by_id;
	char **remapped; /* names to remove when the tree runs */
	size_t n_remapped, cap_remapped;
	struct terminal *terminals; /* terminal.c */
	size_t n_terminals, cap_terminals;
	struct dead_dir *dirs; /* dead_dir.c */
	size_t n_dirs, cap_dirs;
	struct dead_process *dead; /* pidfd.c */
	size_t n_dead, cap_dead;
	char **labels; /* of entries of batches, which do not own theirs */
	size_t n_labels, cap_labels;
	struct mqueue_here *mqueues; /* mqueue.c */
	size_t n_mqueues, cap_mqueues;
	struct ghost_object *ghosts;
	size_t n_ghosts, cap_ghosts;
	struct index_map ghost_by_id;
	struct index_map nameless; /* ghost -> index of the description that made it + 1 */
	bool nameless_known;
	struct ring_here *rings; /* io_uring_rebuild.c */
	size_t n_rings, cap_rings;
	unsigned n_temporary;
	struct rename_undo *undo;
	size_t n_undo;
};
struct files_rebuild *files_rebuild_of(struct rebuild *r);
int files_rebuild_begin(struct rebuild *r, const Ferry__Files *all, struct error *e);
/* What the host has open for a description of the image. files_put takes @fd over. Descriptors that were got
 * are valid until files_trim(), which is for those who go through many, between two of them. */
void files_put(struct rebuild *r, size_t index, int fd);
bool files_has(struct rebuild *r, size_t index);
int files_get(struct rebuild *r, size_t index, struct error *e); /* -EBADF without a text: it has none */
int files_trim(struct rebuild *r, struct error *e);
/* Where a process is to fetch it. false: not open. */
bool files_where(struct rebuild *r, uint64_t id, pid_t *ret_pid, int *ret_fd);
void files_rebuild_close(struct rebuild *r); /* the host's descriptors */
/* The same at the end of a rebuild that went well: types may do what comes last. */
int files_rebuild_finish(struct rebuild *r, struct error *e);
const FileDescription *files_find(struct rebuild *r, uint64_t id);
/* Move what is at @path out of the way until the tree runs (then it is removed), or is given up (then it
 * comes back). 0 too when nothing is there. */
int files_move_away(struct rebuild *r, const char *path, struct error *e);
/* Status flags that open(2) or the creating call could not set. */
int files_set_flags(int fd, int flags, const FileDescription *m, struct error *e);

/* Refuse what has no name that leads to it: "deleted, but another name is left" and the like. */
int files_need_name(const struct fd_facts *f, const char *what, struct error *e);
bool files_marked_deleted(const char *link);
/* @link without a final " (deleted)". malloc'ed. */
char *files_strip_deleted(const char *link);
/* @path below --root. malloc'ed. */
char *files_host_path(const struct rebuild *r, const char *path);
/* Names to try for a file that will have none: its old one, one beside it, one in /tmp. NULL after the last.
 * malloc'ed. */
char *files_temporary_name(struct rebuild *r, const char *path, unsigned attempt);
/* Flags to give open(2) for a description that had @flags. */
int files_open_flags(int flags);

/* Of the frozen target, before anything of it is opened: refuse events that wait to be read. */
int inotify_check_queues(struct capture *c, struct error *e);
bool inotify_is(const char *link);
bool fanotify_is(const char *link);
struct inotify_queues { /* our copies of descriptors, those of fanotify too */
	struct awaited queues;
	pid_t pid; /* the first of fanotify, 0: none */
	int fd;
};
/* Of the tree that has just been stopped: those with events that wait to be read. */
int inotify_find_queued(struct capture *c, struct inotify_queues *ret, struct error *e);
/* The tree runs: wait until all of them are empty, or it is time (now_ns). */
void inotify_wait_read(const struct inotify_queues *q, uint64_t until);
void inotify_queues_deinit(struct inotify_queues *q);
/* Of the tree that has just been stopped, before its last pages are read: wait until no request of an
 * io_uring is under way. */
int io_uring_wait_idle(struct capture *c, struct error *e);
/* A regular file that has lost the name it was opened by, but has another one. */
bool link_remap_concerns(const struct fd_facts *f);
int link_remap_capture(struct capture *c, const struct fd_facts *f, Ferry__RegularFile *m, struct error *e);
void link_remap_free(struct files_capture *f);
/* Returns the descriptor. */
int link_remap_open(struct rebuild *r, const FileDescription *m, int flags, struct error *e);
void link_remap_done(struct files_rebuild *f, bool started);
/* Was the master of this pseudo-terminal found in the tree? */
bool tty_has_master(struct capture *c, int index);
int tty_undo(struct capture *c, struct error *e);
void tty_forget_drained(struct files_capture *f);
void terminals_free(struct files_rebuild *f);
/* Refuse a description that is only queued in a socket and holds a lock: nobody could take it again. */
int locks_check_extra(const struct fd_facts *f, const char *fdinfo, struct error *e);
/* Deleted directories, as working directory or open. */
Ferry__DeadDir *dead_dir_describe(const struct stat *st);
/* Make it again, once for all who are in it: its name until files_rebuild_close() removes it. */
int dead_dir_make(struct rebuild *r, const char *path, const Ferry__DeadDir *d, const char **ret,
		  struct error *e);
void dead_dirs_free(struct files_rebuild *f);
/* Keep @label until the rebuild is over; takes ownership, returns it. */
const char *files_keep_label(struct rebuild *r, char *label);

/* Append, growing. */
#define FILES_GROW(array, n, cap)                                              \
	do {                                                                   \
		if ((n) == (cap)) {                                            \
			(cap) = (cap) ? (cap)*2 : 16;                          \
			(array) = xrealloc((array), (cap) * sizeof(*(array))); \
		}                                                              \
	} while (0)

/* Of single types. */
void pipes_free(struct files_rebuild *r);
void ghosts_free(struct files_rebuild *r);
void pidfds_free(struct files_rebuild *f);
void rings_free(struct files_rebuild *f);
void mqueues_free(struct files_rebuild *f, bool started);
void unix_capture_free(struct capture *c);
void tcp_capture_free(struct capture *c);
void tcp_rebuild_free(struct rebuild *r);
void unix_rebuild_free(struct rebuild *r);
extern const struct fd_type fd_regular, fd_ghost, fd_pipe, fd_fifo, fd_eventfd, fd_epoll, fd_timerfd,
	fd_signalfd, fd_memfd, fd_userfaultfd, fd_pidfd, fd_inotify, fd_fanotify, fd_tty, fd_unix, fd_inet,
	fd_external, fd_bpf_map, fd_mqueue, fd_dgram, fd_packet, fd_netlink, fd_io_uring, fd_refused;
