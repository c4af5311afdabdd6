/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A round trip of descriptors without the rest of a migration: a small tree of children sets descriptors up,
 * is captured (they only wait meanwhile), killed, and the descriptors are rebuilt in other children, which
 * run the batch themselves and look at what they got, at the numbers it had.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "parasite/batch.h"
#include "state/files/files.h"
#include "state/memory/memory.h"

#define MAX_PROCS 4

/* One process of a scenario: @k is its place in the tree. A setup that returns n > 0 wants n children (of
 * process 0 only). */
struct scenario {
	void (*setup)(int k);
	void (*verify)(int k);
	int n_procs;
	struct state_options options;
};

static struct shared {
	volatile int ready[MAX_PROCS];
	volatile pid_t pids[MAX_PROCS];
	volatile int failed;
	char text[512];
	long values[64]; /* from setup to verify */
} * shared;

#define MUST(condition)                                                                                    \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			snprintf(shared->text, sizeof(shared->text), "%s:%d: %s (%s)", __FILE__, __LINE__, \
				 #condition, strerror(errno));                                             \
			shared->failed = 1;                                                                \
			_exit(1);                                                                          \
		}                                                                                          \
	} while (0)

struct fixture {
	struct tree tree;
	struct process procs[MAX_PROCS], *proc_ptrs[MAX_PROCS];
	struct thread threads[MAX_PROCS], *thread_ptrs[MAX_PROCS];
	struct state_options options;
	struct snapshot snapshot;
	struct capture c;
	struct rebuild r;
	struct error e;
};

/* --- stand-ins for other layers; weak: the real ones win where they are linked -------------------- */

__attribute__((weak)) void snapshot_put(struct snapshot *s, uint32_t type, int32_t pid, int32_t tid,
					ProtobufCMessage *m)
{
	s->r = xrealloc(s->r, (s->n + 1) * sizeof(*s->r));
	s->r[s->n++] = (struct snapshot_record){type, pid, tid, false, m};
}

__attribute__((weak)) ProtobufCMessage *snapshot_find(const struct snapshot *s, uint32_t type, int32_t pid,
						      int32_t tid)
{
	for (size_t i = s->n; i-- > 0;)
		if (s->r[i].type == type && s->r[i].pid == pid && s->r[i].tid == tid)
			return s->r[i].message;
	return NULL;
}

__attribute__((weak)) void snapshot_deinit(struct snapshot *s)
{
	for (size_t i = 0; i < s->n; i++)
		protobuf_c_message_free_unpacked(s->r[i].message, NULL);
	free(s->r);
	*s = (struct snapshot){0};
}

__attribute__((weak)) struct process *tree_find(struct tree *t, pid_t pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->pid == pid)
			return t->procs[i];
	return NULL;
}

static int object_fds[16] __attribute__((unused));
static int n_objects __attribute__((unused));

__attribute__((weak)) int memory_object_of_fd(struct capture *c, int fd, ObjectKind kind, const char *name,
					      uint64_t *ret_id, struct error *e)
{
	struct stat a, b;

	(void)c;
	(void)kind;
	(void)name;
	(void)e;
	fstat(fd, &a);
	for (int i = 0; i < n_objects; i++) {
		fstat(object_fds[i], &b);
		if (a.st_ino == b.st_ino) {
			*ret_id = i + 1;
			return 0;
		}
	}
	object_fds[n_objects++] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	*ret_id = n_objects;
	return 0;
}

__attribute__((weak)) uint64_t memory_object_find(const struct memory *m, uint64_t dev, uint64_t ino)
{
	(void)m;
	(void)dev;
	(void)ino;
	return 0;
}

static int object_fd(struct rebuild *r, uint64_t id)
{
	(void)r;
	return id >= 1 && (int)id <= n_objects ? object_fds[id - 1] : -1;
}

/* Ghost contents, as the stream would bring them. */
static struct {
	uint64_t id;
	int fd;
	size_t puts;
} ghost_store[8] __attribute__((unused));
static int n_ghosts_stored __attribute__((unused));

static int ghost_fd(struct rebuild *r, uint64_t id)
{
	(void)r;
	for (int i = 0; i < n_ghosts_stored; i++)
		if (ghost_store[i].id == id)
			return ghost_store[i].fd;
	return -1;
}

static int put_pages(void *ctx, uint32_t space, uint64_t id, uint64_t addr, const void *data, uint64_t length,
		     struct error *e)
{
	int fd = ghost_fd(NULL, id);

	(void)ctx;
	(void)e;
	assert_int_equal(space, 2);
	if (fd < 0) {
		fd = memfd_create("content", MFD_CLOEXEC);
		ghost_store[n_ghosts_stored].id = id;
		ghost_store[n_ghosts_stored++].fd = fd;
	}
	assert_int_equal(pwrite(fd, data, length, addr), length);
	ghost_store[n_ghosts_stored - 1].puts++;
	return 0;
}

/* --- the source ----------------------------------------------------------------------------------- */

static void run_setup(const struct scenario *s)
{
	int k = 0;

	s->setup(0);
	shared->pids[0] = getpid();
	for (int i = 1; i < s->n_procs && k == 0; i++) {
		if (fork() != 0)
			continue;
		k = i;
		s->setup(k);
		shared->pids[k] = getpid();
	}
	alarm(60);
	shared->ready[k] = 1;
	for (;;)
		pause();
}

static void start(struct fixture *x, const struct scenario *s)
{
	memset(x, 0, sizeof(*x));
	memset((void *)shared, 0, sizeof(*shared));
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		close_range(0, ~0u, 0);
		run_setup(s);
	}
	for (int k = 0; k < s->n_procs; k++) {
		for (int i = 0; i < 20000 && !shared->ready[k] && !shared->failed; i++)
			usleep(1000);
		if (shared->failed)
			fail_msg("setup: %s", shared->text);
		assert_true(shared->ready[k]);
		x->procs[k] = (struct process){.pid = shared->pids[k], .state = PROCESS_ALIVE, .pidfd = -1};
		x->procs[k].parent = k ? &x->procs[0] : NULL;
		x->threads[k].process = &x->procs[k];
		x->threads[k].task.pid = x->threads[k].task.tid = shared->pids[k];
		x->thread_ptrs[k] = &x->threads[k];
		x->procs[k].threads = &x->thread_ptrs[k];
		x->procs[k].n_threads = 1;
		x->procs[k].pidfd = sys_pidfd_open(x->procs[k].pid, 0);
		x->proc_ptrs[k] = &x->procs[k];
	}
	x->tree.procs = x->proc_ptrs;
	x->tree.n = s->n_procs;
	x->options = s->options;
	if (!x->options.ghost_limit)
		x->options.ghost_limit = 1 << 20;
	x->c = (struct capture){.tree = &x->tree,
				.options = &x->options,
				.snapshot = &x->snapshot,
				.pages = {put_pages, NULL}};
	x->r = (struct rebuild){.tree = &x->tree,
				.options = &x->options,
				.snapshot = &x->snapshot,
				.object_fd = object_fd,
				.ghost_fd = ghost_fd};
}

static int preflight(struct fixture *x)
{
	x->tree.frozen = false;
	return kind_files.preflight(&x->c, NULL, &x->e);
}

static int capture(struct fixture *x)
{
	x->tree.frozen = true;
	int r = kind_files.take(&x->c, NULL, NULL, NULL, NULL, &x->e);

	for (size_t k = 0; r >= 0 && k < x->tree.n; k++)
		r = kind_fdtable.take(&x->c, &x->procs[k], &x->threads[k], NULL, NULL, &x->e);
	return r;
}

static void stop(struct fixture *x)
{
	files_capture_free(&x->c);
	for (size_t k = 0; k < x->tree.n; k++)
		kill(x->procs[k].pid, SIGKILL);
	/* Grandchildren are not ours to wait for: their descriptors must be closed before the rebuild all the
	 * same. */
	for (size_t k = 0; k < x->tree.n; k++) {
		waitpid(x->procs[k].pid, NULL, 0);
		for (int i = 0; i < 5000 && kill(x->procs[k].pid, 0) == 0; i++) {
			char path[64];
			struct stat st;

			snprintf(path, sizeof(path), "/proc/%d/fd", x->procs[k].pid);
			if (stat(path, &st) == 0 && st.st_size == 0)
				break;
			usleep(1000);
		}
		close(x->procs[k].pidfd);
		x->procs[k].pidfd = -1;
	}
}

/* --- the destination ------------------------------------------------------------------------------ */

static void run_batch(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		struct pb_entry *p = &b->entries[i];
		uint64_t a[6];

		for (int k = 0; k < 6; k++)
			a[k] = p->kinds[k] == PB_ARG_ARENA    ? (uint64_t)(b->data + p->args[k])
			       : p->kinds[k] == PB_ARG_RESULT ? (uint64_t)b->entries[p->args[k]].result
							      : p->args[k];
		MUST(p->op == PB_OP_SYSCALL);
		p->result = syscall(p->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		if (p->result < 0)
			p->result = -errno;
		bool good = p->accept == PB_ACCEPT_ANY ||
			    (p->accept == PB_ACCEPT_EQUAL && p->result == p->accept_value) ||
			    (p->accept != PB_ACCEPT_EQUAL && p->result >= 0) ||
			    (p->accept == PB_ACCEPT_OR && p->result == -p->accept_value);

		if (!good) {
			snprintf(shared->text, sizeof(shared->text), "entry %zu: %s: %ld", i, b->labels[i],
				 (long)p->result);
			shared->failed = 1;
			_exit(1);
		}
	}
}

static void rebuild(struct fixture *x, const struct scenario *s)
{
	Ferry__Files *all =
		(Ferry__Files *)snapshot_find(&x->snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0);

	assert_non_null(all);
	/* The owners are not there: there is no skeleton with their pid. */
	for (size_t i = 0; i < all->n_files; i++)
		if (all->files[i]->owner)
			all->files[i]->owner->pid = getpid();
	if (kind_files.check(&x->r, 0, 0, &all->base, &x->e) < 0 ||
	    kind_files.prepare(&x->r, &all->base, &x->e) < 0)
		fail_msg("rebuild: %s (%s)", x->e.text, x->e.where);
	shared->failed = 0;
	pid_t pids[MAX_PROCS];
	struct batch batches[MAX_PROCS] = {0};

	for (int k = 0; k < s->n_procs; k++) {
		ProtobufCMessage *m =
			snapshot_find(&x->snapshot, FERRY__RECORD_TYPE__RECORD_FDTABLE, x->procs[k].pid, 0);

		if (kind_fdtable.check(&x->r, x->procs[k].pid, 0, m, &x->e) < 0 ||
		    kind_fdtable.build(&x->r, &x->procs[k], &x->threads[k], m, &batches[k], &x->e) < 0)
			fail_msg("table: %s (%s)", x->e.text, x->e.where);
		shared->ready[k] = 0;
		pids[k] = fork();
		if (pids[k] == 0) {
			alarm(30);
			run_batch(&batches[k]);
			shared->ready[k] = 1;
			/* Until the host has closed its own. */
			while (shared->ready[k] != 2)
				usleep(100);
			s->verify(k);
			_exit(0);
		}
	}
	for (int k = 0; k < s->n_procs; k++)
		while (!shared->ready[k] && !shared->failed)
			usleep(100);
	kind_fdtable.finish(&x->r, NULL, NULL, NULL, &x->e);
	files_rebuild_free(&x->r, true);
	for (int k = 0; k < s->n_procs; k++)
		shared->ready[k] = 2;
	for (int k = 0; k < s->n_procs; k++) {
		int status = 0;

		waitpid(pids[k], &status, 0);
		if (shared->failed || status)
			fail_msg("process %d: %s (status %x)", k, shared->text, status);
		batch_deinit(&batches[k]);
	}
}

static void finish(struct fixture *x)
{
	snapshot_deinit(&x->snapshot);
	for (int i = 0; i < n_ghosts_stored; i++)
		close(ghost_store[i].fd);
	for (int i = 0; i < n_objects; i++)
		close(object_fds[i]);
	n_ghosts_stored = n_objects = 0;
}

static int count_fds(void)
{
	int n = 0;

	for (int i = 0; i < 1024; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

static void __attribute__((unused)) round_trip(const struct scenario *s)
{
	struct fixture x;
	int before = count_fds();

	start(&x, s);
	if (preflight(&x) < 0)
		fail_msg("preflight: %s (%s)", x.e.text, x.e.where);
	if (capture(&x) < 0)
		fail_msg("capture: %s (%s)", x.e.text, x.e.where);
	stop(&x);
	rebuild(&x, s);
	finish(&x);
	assert_int_equal(count_fds(), before);
}

/* The refusal of preflight names pid and fd, and @expect. */
static void __attribute__((unused)) refused(const struct scenario *s, int fd, const char *expect)
{
	struct fixture x;
	char who[64];

	start(&x, s);
	assert_true(preflight(&x) < 0);
	snprintf(who, sizeof(who), "pid %d fd %d: ", x.procs[0].pid, fd);
	if (!strstr(x.e.text, who) || !strstr(x.e.text, expect))
		fail_msg("not what was expected (%s, %s): %s", who, expect, x.e.text);
	stop(&x);
	finish(&x);
}

static int __attribute__((unused)) make_shared(void **state)
{
	(void)state;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED;
}
