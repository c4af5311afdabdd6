/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log between a tracing worker and its supervisor, and the cure.
 *
 * When the tracer dies the kernel lets every thread go from its stop.  One whose registers were its own
 * simply runs on, and nothing may be put back there: that would throw it into its past.  One that had ours is
 * found where our code keeps it: in the region, or in the endless loop of freeze/syscall.c.  So the cure
 * looks at the instruction pointer first, and trusts the log only for threads that are in a place of ours.  A
 * signal mask of "everything", set by us just before or after, is recognized by itself.
 *
 * The tables are open hash tables in memory that both share.  The flag of an entry is written last, and the
 * worker is the only writer while it lives, so what the supervisor finds is complete.
 */
#include "freeze/rescue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "base/util.h"
#include "freeze/cgroup.h"
#include "freeze/tcp_repair.h"
#include "procfs/procfs.h"

#define MAX_TASKS   (1u << 16)
#define MAX_REGIONS (1u << 14)
#define MAX_FDS     8

enum { EMPTY, USED, DELETED };

struct task_entry {
	atomic_uint used;
	pid_t pid, tid;
	bool spin_armed, masked;
	struct arch_regs regs;
	uint64_t mask, rseq_addr, rseq_cs, insn, spin;
};

struct region_entry {
	atomic_uint used;
	pid_t pid;
	uint64_t addr, size; /* 0: none */
	uint64_t busy, list;
	int fds[MAX_FDS];
	atomic_uint n_fds;
};

enum { CGROUP_NONE, CGROUP_THAW, CGROUP_FREEZE };

struct log {
	atomic_uint cgroup_used; /* what must be done with it */
	char cgroup[512];
	atomic_uint repair; /* of TCP connections */
	char hold[64];
	char plugin[64];            /* that is called */
	_Atomic(const char *) call; /* what of it: a string of the program */
	atomic_uint overdue_ms;
	struct task_entry tasks[MAX_TASKS];
	struct region_entry regions[MAX_REGIONS];
};

static char last_hold[64];  /* of the log that was worked off last */
static char last_call[160]; /* likewise */
static struct log *the_log; /* one per process: the worker inherits it from its supervisor */

int rescue_init(struct error *e)
{
	struct log *l = mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (l == MAP_FAILED)
		return error_set(e, errno, "no memory for the rescue log");
	if (the_log)
		munmap(the_log, sizeof(*the_log));
	the_log = l;
	return 0;
}

/* --- the tables ---------------------------------------------------------------------------------- */

static struct task_entry *task_slot(pid_t tid, bool create)
{
	struct task_entry *free_slot = NULL;

	for (unsigned n = 0; the_log && n < MAX_TASKS; n++) {
		struct task_entry *t = &the_log->tasks[((unsigned)tid + n) % MAX_TASKS];

		if (t->used == USED && t->tid == tid)
			return t;
		if (t->used != USED && !free_slot)
			free_slot = t;
		if (t->used == EMPTY)
			break;
	}
	return create ? free_slot : NULL;
}

void rescue_note_task(const struct task *t)
{
	struct task_entry *s = t->skeleton ? NULL : task_slot(t->tid, true);

	if (!s)
		return;
	s->pid = t->pid;
	s->tid = t->tid;
	s->regs = t->saved_regs;
	s->mask = t->saved_mask;
	s->rseq_addr = t->rseq_addr;
	s->rseq_cs = t->saved_rseq_cs;
	s->insn = t->syscall_insn;
	s->spin = t->spin;
	s->spin_armed = t->spin_armed;
	s->masked = t->masked;
	atomic_store(&s->used, USED);
}

void rescue_clear_task(const struct task *t)
{
	struct task_entry *s = t->skeleton ? NULL : task_slot(t->tid, false);

	if (s)
		atomic_store(&s->used, DELETED);
}

static struct region_entry *region_slot(pid_t pid, bool create)
{
	struct region_entry *free_slot = NULL;

	for (unsigned n = 0; the_log && n < MAX_REGIONS; n++) {
		struct region_entry *r = &the_log->regions[((unsigned)pid + n) % MAX_REGIONS];

		if (r->used == USED && r->pid == pid)
			return r;
		if (r->used != USED && !free_slot)
			free_slot = r;
		if (r->used == EMPTY)
			break;
	}
	if (!create || !free_slot)
		return NULL;
	free_slot->pid = pid;
	free_slot->addr = free_slot->size = free_slot->busy = free_slot->list = 0;
	free_slot->n_fds = 0;
	atomic_store(&free_slot->used, USED);
	return free_slot;
}

static void region_slot_done(struct region_entry *r)
{
	if (r->size == 0 && r->n_fds == 0)
		atomic_store(&r->used, DELETED);
}

void rescue_note_region(pid_t pid, uint64_t addr, uint64_t size)
{
	struct region_entry *r = region_slot(pid, true);

	if (!r)
		return;
	r->addr = addr;
	atomic_signal_fence(memory_order_seq_cst);
	r->size = size;
}

void rescue_clear_region(pid_t pid)
{
	struct region_entry *r = region_slot(pid, false);

	if (!r)
		return;
	r->size = r->list = 0;
	region_slot_done(r);
}

void rescue_note_fd(pid_t pid, int fd)
{
	struct region_entry *r = region_slot(pid, true);

	if (!r || r->n_fds >= MAX_FDS)
		return;
	r->fds[r->n_fds] = fd;
	r->n_fds++;
}

void rescue_clear_fd(pid_t pid)
{
	struct region_entry *r = region_slot(pid, false);

	if (!r)
		return;
	r->n_fds = 0;
	region_slot_done(r);
}

void rescue_note_undo(pid_t pid, uint64_t busy, uint64_t list)
{
	struct region_entry *r = region_slot(pid, true);

	if (!r)
		return;
	r->busy = busy;
	atomic_signal_fence(memory_order_seq_cst);
	r->list = list;
}

void rescue_note_cgroup(const char *dir, bool frozen)
{
	if (!the_log || strlen(dir) >= sizeof(the_log->cgroup))
		return;
	atomic_store(&the_log->cgroup_used, CGROUP_NONE);
	strcpy(the_log->cgroup, dir);
	atomic_store(&the_log->cgroup_used, frozen ? CGROUP_FREEZE : CGROUP_THAW);
}

void rescue_clear_cgroup(void)
{
	if (the_log)
		atomic_store(&the_log->cgroup_used, CGROUP_NONE);
}

void rescue_note_repair(const char *hold)
{
	if (!the_log)
		return;
	atomic_store(&the_log->repair, 0);
	snprintf(the_log->hold, sizeof(the_log->hold), "%s", hold ? hold : "");
	atomic_store(&the_log->repair, hold != NULL);
}

const char *rescue_hold(void)
{
	return last_hold;
}

/* --- the cure ------------------------------------------------------------------------------------ */

struct patient {
	const struct task_entry *entry; /* NULL: a thread borrowed to run system calls */
	struct task task;
};

static bool in_our_code(uint64_t ip, const struct task_entry *t, const struct region_entry *r)
{
	if (r && r->size && ip >= r->addr && ip - r->addr < r->size)
		return true;
	return t->insn && ip >= t->insn && ip < t->insn + ARCH_SPIN_SIZE &&
	       (t->spin_armed || ip <= t->insn + 2);
}

/* The dead tracer may not yet have let go. */
static int seize(struct task *t, pid_t pid, pid_t tid, struct error *e)
{
	for (int tries = 0;; tries++) {
		struct error again = ERROR_INIT;
		int r = task_seize(t, pid, tid, false, &again);

		if (r == 0 || r == -ESRCH || tries == 200) {
			if (r < 0 && r != -ESRCH)
				error_say(e, -r, "%s", again.text);
			return r;
		}
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}

static int cure_task(struct patient *p, const struct region_entry *region, struct error *e)
{
	const struct task_entry *s = p->entry;
	struct task *t = &p->task;
	struct arch_regs now;
	uint64_t mask;
	int r = arch_regs_get(t->tid, &now);

	if (r < 0)
		return r == -ESRCH ? 0 : error_set(e, -r, "pid %d: registers of thread %d", t->pid, t->tid);
	t->rseq_addr = s->rseq_addr;
	t->saved_mask = s->mask;
	if (in_our_code(arch_regs_ip(&now), s, region)) {
		t->saved_regs = s->regs;
		t->saved_rseq_cs = s->rseq_cs;
		t->saved = t->masked = true;
		return task_restore(t, e);
	}
	if (s->masked && ptrace(PTRACE_GETSIGMASK, t->tid, sizeof(mask), &mask) == 0 &&
	    (mask | 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1)) == ~0ull)
		return task_set_mask(t, s->mask, e);
	return 0;
}

/* Is our region still there? Another mapping at the same place is not ours to unmap. */
static bool region_there(const struct region_entry *region, pid_t tid)
{
	struct error ignored = ERROR_INIT;
	struct proc_maps maps = {0};
	bool found = false;

	if (!region->size || proc_maps_read(tid, false, &maps, &ignored) < 0)
		return false;
	for (size_t i = 0; i < maps.n && !found; i++)
		found = maps.v[i].start == region->addr && maps.v[i].end == region->addr + region->size &&
			maps.v[i].shared && maps.v[i].prot == (PROT_READ | PROT_WRITE | PROT_EXEC);
	proc_maps_deinit(&maps);
	return found;
}

static bool read_target(pid_t pid, uint64_t addr, void *p, size_t size)
{
	struct iovec here = {p, size}, there = {(void *)(uintptr_t)addr, size};

	return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

/* The batch it was given goes on although the giver is dead: stopped between a call and the note of its
 * result, a descriptor would be lost. */
static void let_batch_end(const struct region_entry *region, pid_t tid)
{
	uint32_t words[2];

	for (int i = 0; i < 200 && read_target(tid, region->busy, words, sizeof(words)); i++) {
		if (words[0] == words[1])
			return;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

static void take_undo_list(struct region_entry *region, pid_t tid)
{
	int32_t list[1 + MAX_FDS];

	if (!region->list || !read_target(tid, region->list, list, sizeof(list)))
		return;
	for (int32_t i = 0; i < list[0] && i < MAX_FDS && region->n_fds < MAX_FDS; i++)
		if (list[1 + i] >= 0)
			region->fds[region->n_fds++] = list[1 + i];
}

/* Ours are closed in the target before the handshake is made through our copy; the program's own have made
 * theirs. */
static bool is_new_uffd(pid_t pid, int fd)
{
	cleanup_free char *path = xasprintf("/proc/%d/fd/%d", pid, fd), *link = NULL, *text = NULL;
	cleanup_free char *info = xasprintf("/proc/%d/fdinfo/%d", pid, fd);
	unsigned features = 1;

	if (readlink_at(AT_FDCWD, path, &link) < 0 || strcmp(link, "anon_inode:[userfaultfd]") != 0 ||
	    read_file(info, &text) < 0)
		return false;
	const char *api = proc_field(text, "API");

	return api && sscanf(api, "%*x:%x", &features) == 1 && features == 0;
}

/* Our userfaultfds by what they are: the number of one was not known yet when the worker died. */
static void find_uffds(pid_t tid, struct region_entry *region)
{
	cleanup_free int *fds = NULL;
	struct error ignore = ERROR_INIT;
	size_t n = 0;

	if (proc_fds(tid, &fds, &n, &ignore) < 0)
		return;
	for (size_t i = 0; i < n && region->n_fds < MAX_FDS; i++)
		if (is_new_uffd(tid, fds[i]))
			region->fds[region->n_fds++] = fds[i];
}

static void resolve_fds(struct task *t, struct region_entry *region)
{
	for (unsigned i = 0; i < region->n_fds; i++)
		if (region->fds[i] == RESCUE_UFFD) {
			region->fds[i] = region->fds[--region->n_fds];
			find_uffds(t->tid, region);
			return;
		}
}

static int clean_process(struct task *t, const struct region_entry *region, struct error *e)
{
	bool mapped = region_there(region, t->tid);
	int64_t result;
	int r = 0;

	if (!mapped && region->n_fds == 0)
		return 0;
	r = task_save(t, e);
	for (unsigned i = 0; r == 0 && i < region->n_fds; i++)
		r = task_syscall(t, SYS_close, (uint64_t[6]){(uint64_t)region->fds[i]}, &result, NULL, NULL,
				 e);
	if (r == 0 && mapped)
		r = task_syscall(t, SYS_munmap, (uint64_t[6]){region->addr, region->size}, &result, NULL,
				 NULL, e);
	int undo = task_restore(t, e);

	return r == -ESRCH ? 0 : r < 0 ? r : undo;
}

/* All threads of one process that the log names (or its leader, when it only names a region). */
static int cure_process(struct patient *p, size_t n, struct region_entry *region, struct error *e)
{
	struct task *stopped = NULL;
	int r, cured = 0;

	if (region && region->list)
		let_batch_end(region, n && p[0].entry ? p[0].entry->tid : region->pid);

	for (size_t i = 0; i < n; i++) {
		pid_t pid = p[i].entry ? p[i].entry->pid : region->pid;

		r = seize(&p[i].task, pid, p[i].entry ? p[i].entry->tid : pid, e);
		if (r == 0)
			r = task_interrupt(&p[i].task, e);
	}
	for (size_t i = 0; i < n; i++) {
		struct task *t = &p[i].task;

		if (t->seized && task_wait_stopped(t, 10000, e) == 0) {
			if (p[i].entry && cure_task(&p[i], region, e) == 0)
				cured++;
			stopped = stopped ? stopped : t;
		}
	}
	for (size_t i = 0; i < n && stopped; i++)
		if (p[i].entry && p[i].entry->spin_armed)
			(void)ptrace(PTRACE_POKEDATA, stopped->tid, p[i].entry->spin, 0L);
	if (region && stopped && region_there(region, stopped->tid))
		take_undo_list(region, stopped->tid);
	if (region && stopped)
		resolve_fds(stopped, region);
	if (region && stopped)
		(void)clean_process(stopped, region, e);
	for (size_t i = 0; i < n; i++)
		(void)task_release(&p[i].task, e);
	return cured;
}

static int by_pid(const void *a, const void *b)
{
	const struct patient *p = a, *q = b;

	return p->entry->pid < q->entry->pid ? -1 : p->entry->pid > q->entry->pid;
}

/* --- calls of plugins ---------------------------------------------------------------------------- */

void rescue_note_call(const char *plugin, const char *what)
{
	if (!the_log)
		return;
	if (what && strcmp(the_log->plugin, plugin))
		snprintf(the_log->plugin, sizeof(the_log->plugin), "%s", plugin);
	atomic_store(&the_log->call, what);
}

void rescue_note_overdue(unsigned limit_ms)
{
	if (the_log)
		atomic_store(&the_log->overdue_ms, limit_ms);
}

const char *rescue_call(void)
{
	return last_call;
}

static void tell_call(const struct log *l)
{
	const char *what = atomic_load(&l->call);

	if (!what)
		*last_call = 0;
	else if (l->overdue_ms)
		snprintf(last_call, sizeof(last_call),
			 ", as backend %s did not come back from %s within %g s", l->plugin, what,
			 l->overdue_ms / 1e3);
	else
		snprintf(last_call, sizeof(last_call), " in %s of backend %s", what, l->plugin);
}

int rescue_run(struct error *e)
{
	struct log *l = TAKE_PTR(the_log); /* what we do is not to be logged */
	size_t n = 0, cap = 64;
	int cured = 0;

	if (!l)
		return 0;
	/* First: a thread of a frozen cgroup of version 1 does not report its stop. */
	if (l->cgroup_used == CGROUP_THAW)
		cgroup_set(l->cgroup, false, e);
	struct patient *p = xcalloc(cap, sizeof(*p));

	for (size_t i = 0; i < MAX_TASKS; i++) {
		if (l->tasks[i].used != USED)
			continue;
		if (n + 1 >= cap)
			p = xrealloc(p, (cap *= 2) * sizeof(*p));
		p[n++] = (struct patient){.entry = &l->tasks[i]};
	}
	qsort(p, n, sizeof(*p), by_pid);
	tell_call(l);
	snprintf(last_hold, sizeof(last_hold), "%s", l->repair ? l->hold : "");
	/* Before any of them runs again. */
	for (size_t i = 0; l->repair && i < n; i++)
		if (i == 0 || p[i].entry->pid != p[i - 1].entry->pid)
			tcp_repair_end(p[i].entry->pid, false);
	for (size_t i = 0, j; i < n; i = j) {
		the_log = l;
		struct region_entry *region = region_slot(p[i].entry->pid, false);

		the_log = NULL;
		for (j = i + 1; j < n && p[j].entry->pid == p[i].entry->pid; j++)
			;
		cured += cure_process(p + i, j - i, region, e);
		if (region)
			atomic_store(&region->used, DELETED);
	}
	for (size_t i = 0; i < MAX_REGIONS; i++)
		if (l->regions[i].used == USED) {
			struct patient lone = {0};

			cure_process(&lone, 1, &l->regions[i], e);
			cured++;
		}
	if (l->cgroup_used == CGROUP_FREEZE)
		cgroup_set(l->cgroup, true, e);
	free(p);
	(void)madvise(l, sizeof(*l), MADV_REMOVE);
	the_log = l;
	return error_is(e) ? -e->code : cured;
}
