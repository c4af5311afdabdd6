/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Parsers of /proc: text in, structs out.  Every parser has a form that takes text (unit-tested and fuzzed,
 * any bytes are safe) and a form that reads the file of a live task.  -ESRCH or -ENOENT: no such task.
 * proc(5).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Bits of the field `flags` of /proc/PID/stat (include/linux/sched.h of the kernel). */
#define PF_EXITING     0x00000004u
#define PF_KTHREAD     0x00200000u
#define PF_IO_WORKER   0x00000010u /* threads that an io_uring makes in a process: no ptrace, no user code */
#define PF_USER_WORKER 0x00004000u

/* /proc/PID/stat or /proc/PID/task/TID/stat */
struct proc_stat {
	pid_t pid;
	char comm[64];
	char state;
	pid_t ppid, pgrp, session;
	int tty_nr, tpgid;
	uint32_t flags; /* PF_... below */
	int num_threads;
	uint64_t major_faults; /* of all threads */
	uint64_t cpu_ticks;    /* user and system time of all threads */
	uint64_t start_time;   /* clock ticks since boot */
	uint64_t start_code, end_code, start_stack;
	int exit_signal;
	uint64_t start_data, end_data, start_brk;
	uint64_t arg_start, arg_end, env_start, env_end;
	int exit_code; /* wait status */
	int nice, priority, rt_priority, policy;
};
int proc_stat_parse(const char *text, struct proc_stat *ret, struct error *e);
int proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *ret, struct error *e); /* tid 0: the process */

/* /proc/PID/task/TID/status */
struct proc_status {
	pid_t tgid, ppid, tracer;
	uint32_t umask;
	bool has_umask;
	uint32_t uid[4], gid[4]; /* real, effective, saved, fs */
	uint32_t *groups;        /* malloc'ed */
	size_t n_groups;
	uint64_t sig_pnd, shd_pnd, sig_blk, sig_ign, sig_cgt;
	uint64_t cap_inh, cap_prm, cap_eff, cap_bnd, cap_amb;
	int no_new_privs, seccomp, seccomp_filters;
	uint64_t vm_pin_kb;
	uint64_t rss_anon_kb, rss_shmem_kb, swap_kb;
	pid_t ns_pid[32]; /* outermost first */
	int n_ns_pid;
	int thp_enabled; /* -1: not shown */
};
int proc_status_parse(const char *text, struct proc_status *ret, struct error *e);
int proc_status_read(pid_t pid, pid_t tid, struct proc_status *ret, struct error *e);
void proc_status_deinit(struct proc_status *s);

/* /proc/PID/maps, with VmFlags when read from smaps */
struct proc_vma {
	uint64_t start, end, offset, ino;
	uint32_t dev_major, dev_minor;
	uint32_t prot; /* PROT_* */
	bool shared;
	char *path; /* "" for none; unescaped (\012) */
	bool has_flags;
	uint64_t vmflags;      /* PROC_VM_* */
	uint64_t anon_huge_kb; /* smaps: mapped by transparent huge pages */
	uint32_t pkey;         /* smaps: protection key */
};
#define PROC_VM_GROWSDOWN    (1ull << 0)  /* gd */
#define PROC_VM_LOCKED       (1ull << 1)  /* lo */
#define PROC_VM_LOCKFAULT    (1ull << 2)  /* lf */
#define PROC_VM_NORESERVE    (1ull << 3)  /* nr */
#define PROC_VM_DONTCOPY     (1ull << 4)  /* dc */
#define PROC_VM_DONTDUMP     (1ull << 5)  /* dd */
#define PROC_VM_WIPEONFORK   (1ull << 6)  /* wf */
#define PROC_VM_HUGEPAGE     (1ull << 7)  /* hg */
#define PROC_VM_NOHUGEPAGE   (1ull << 8)  /* nh */
#define PROC_VM_SEQREAD      (1ull << 9)  /* sr */
#define PROC_VM_RANDREAD     (1ull << 10) /* rr */
#define PROC_VM_HUGETLB      (1ull << 11) /* ht */
#define PROC_VM_SYNC         (1ull << 12) /* sf */
#define PROC_VM_MERGEABLE    (1ull << 13) /* mg */
#define PROC_VM_IO           (1ull << 14) /* io */
#define PROC_VM_PFNMAP       (1ull << 15) /* pf */
#define PROC_VM_MAYWRITE     (1ull << 16) /* mw */
#define PROC_VM_UFFD_WP      (1ull << 17) /* uw */
#define PROC_VM_UFFD_MISSING (1ull << 18) /* um */
#define PROC_VM_UFFD_MINOR   (1ull << 19) /* ui */
#define PROC_VM_SEALED       (1ull << 20) /* sl */
#define PROC_VM_SOFTDIRTY    (1ull << 21) /* sd */
#define PROC_VM_DROPPABLE    (1ull << 22) /* dp */
#define PROC_VM_ACCOUNT      (1ull << 23) /* ac */
#define PROC_VM_GUARD        (1ull << 24) /* gu: may hold guard regions */
struct proc_maps {
	struct proc_vma *v;
	size_t n;
};
int proc_maps_parse(const char *text, struct proc_maps *ret, struct error *e); /* maps or smaps */
/* @flags: read smaps (slower) and fill vmflags. A zombie leader's map is read through a living thread. */
int proc_maps_read(pid_t pid, bool flags, struct proc_maps *ret, struct error *e);
void proc_maps_deinit(struct proc_maps *m);

/* Thread ids of a process, leader first, others ascending; child pids of all threads (task/TID/children),
 * ascending. malloc'ed. */
int proc_threads(pid_t pid, pid_t **ret, size_t *ret_n, struct error *e);
/* What a process goes by where its own number shows nothing: a thread, when the first one has ended; else
 * @pid. */
pid_t proc_living(pid_t pid);
int proc_children(pid_t pid, pid_t **ret, size_t *ret_n, struct error *e);
/* All processes, ascending. */
int proc_pids(pid_t **ret, size_t *ret_n, struct error *e);
/* Open descriptor numbers, ascending. A thread id in @pid gives that thread's table. */
int proc_fds(pid_t pid, int **ret, size_t *ret_n, struct error *e);

/* One "key:\tvalue" line of fdinfo, limits-like files. Returns pointer into @text behind the colon and
 * blanks, or NULL. */
const char *proc_field(const char *text, const char *key);
bool proc_field_u64(const char *text, const char *key, int base, uint64_t *ret);

/* The system call a thread is blocked in: its number, -1: in none. -EAGAIN: it is running, or about to. */
#define PROC_NO_CALL (-1)
int proc_syscall_parse(const char *text, long *ret);
int proc_syscall_read(pid_t pid, pid_t tid, long *ret);

/* Microseconds a thread was seen in user mode (user_time.c): 0 or -errno. Opened once; close takes what open
 * has failed with. */
struct user_times {
	int fd, family;
};
int user_times_open(struct user_times *u);
void user_times_close(struct user_times *u);
int user_time(const struct user_times *u, pid_t tid, uint64_t *ret);

/* /proc/PID/limits: soft and hard by RLIMIT_* number; ~0 is unlimited. */
struct proc_limits {
	uint64_t soft[16], hard[16];
};
int proc_limits_parse(const char *text, struct proc_limits *ret, struct error *e);
int proc_limits_read(pid_t pid, struct proc_limits *ret, struct error *e);

/* /proc/PID/timers */
struct proc_timer {
	int id, signal, clock;
	uint64_t sigev_value;
	int notify; /* SIGEV_* */
	pid_t notify_tid;
};
int proc_timers_parse(const char *text, struct proc_timer **ret, size_t *ret_n, struct error *e);
int proc_timers_read(pid_t pid, struct proc_timer **ret, size_t *ret_n, struct error *e);

/* /proc/locks; and of fdinfo the locks that were taken with this descriptor: of its file description, and
 * POSIX ones of the process the fdinfo was read of. */
enum proc_lock_kind {
	PROC_LOCK_POSIX,
	PROC_LOCK_OFD,
	PROC_LOCK_FLOCK,
	PROC_LOCK_LEASE,
	PROC_LOCK_OTHER, /* delegations and layouts of a file server */
};
#define PROC_LOCK_EOF UINT64_MAX
struct proc_lock {
	enum proc_lock_kind kind;
	bool write, waiting;
	bool breaking; /* a lease that another open(2) waits for */
	pid_t pid;     /* who took it; -1: not told (OFD locks); 0: not in our pid namespace */
	uint32_t major, minor;
	uint64_t ino;
	uint64_t start, end; /* the last byte; PROC_LOCK_EOF: no end */
};
/* @fdinfo: only lines that begin with "lock:". */
int proc_locks_parse(const char *text, bool fdinfo, struct proc_lock **ret, size_t *ret_n, struct error *e);
int proc_locks_read(struct proc_lock **ret, size_t *ret_n, struct error *e);

/* /proc/self/mountinfo */
struct proc_mount {
	int id;
	uint32_t major, minor;
	char *root, *point;   /* unescaped */
	char *type, *options; /* of the file system: what all its mounts have in common */
};
struct proc_mounts {
	struct proc_mount *v;
	size_t n;
};
int proc_mounts_parse(const char *text, struct proc_mounts *ret, struct error *e);
int proc_mounts_read(struct proc_mounts *ret, struct error *e);
void proc_mounts_deinit(struct proc_mounts *m);

/* The cgroup of @pid (as /proc/PID/cgroup has it) in the hierarchy of this controller, "" for version 2. Of a
 * list of controllers the first counts. Malloc'ed; NULL: none, or the process has ended. */
char *proc_cgroup_path(pid_t pid, const char *controller);
/* The directory of the cgroup @path as it is mounted here, without a "/" at its end. Malloc'ed; NULL:
 * nowhere.
 */
char *proc_cgroup_dir(const char *controller, const char *path);
