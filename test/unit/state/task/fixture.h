/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Moving state from one child process to another: capture() does at the one what the engine does at the
 * source, apply() at the other what it does in a skeleton.  The other is a plain child with as many threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "parasite/region.h"
#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/task.h"

#define UNUSED      __attribute__((unused))
#define MAX_THREADS 4
#define MAX_KINDS   10

#define assert_ok(call, e)                                                                  \
	do {                                                                                \
		int r_ = (call);                                                            \
		if (r_ < 0)                                                                 \
			print_error("%s: %d: %s (%s)\n", #call, r_, (e)->text, (e)->where); \
		assert_true(r_ >= 0);                                                       \
	} while (0)

/* Memory that the test and its children see. */
static volatile uint64_t *shared;

UNUSED static int shared_setup(void **state)
{
	(void)state;
	shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED ? -1 : 0;
}

UNUSED static pid_t start(void (*run)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run();
		_exit(0);
	}
	assert_true(pid > 0);
	return pid;
}

UNUSED static void finish(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

UNUSED static void msleep(unsigned ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	while (nanosleep(&ts, &ts) < 0)
		;
}

/* Wait until shared[i] reaches @value. */
UNUSED static void await(unsigned i, uint64_t value)
{
	for (int n = 0; shared[i] < value; n++) {
		assert_true(n < 10000);
		msleep(1);
	}
}

/* --- one side --------------------------------------------------------------------------------------------
 */
struct side {
	struct process p;
	struct thread threads[MAX_THREADS];
	struct thread *list[MAX_THREADS];
	struct region *region;
	struct runner *runners[MAX_THREADS];
	struct batch batches[MAX_THREADS];
	void *states[MAX_THREADS][MAX_KINDS];
};

/* Processes without ptrace, for preflight. */
UNUSED static void side_list(struct side *s, pid_t pid)
{
	struct error e = ERROR_INIT;
	cleanup_free pid_t *tids = NULL;
	size_t n;

	memset(s, 0, sizeof(*s));
	assert_ok(proc_threads(pid, &tids, &n, &e), &e);
	assert_true(n <= MAX_THREADS);
	s->p.pid = pid;
	s->p.threads = s->list;
	s->p.n_threads = n;
	for (size_t i = 0; i < n; i++) {
		s->list[i] = &s->threads[i];
		s->threads[i].process = &s->p;
		s->threads[i].task.pid = pid;
		s->threads[i].task.tid = tids[i];
	}
}

UNUSED static void side_stop(struct side *s, pid_t pid, bool skeleton)
{
	struct error e = ERROR_INIT;

	side_list(s, pid);
	for (size_t i = 0; i < s->p.n_threads; i++) {
		struct task *t = &s->threads[i].task;

		assert_ok(task_seize(t, pid, t->tid, skeleton, &e), &e);
		assert_ok(task_interrupt(t, &e), &e);
		assert_int_equal(task_wait_stopped(t, 5000, &e), 0);
		assert_ok(task_save(t, &e), &e);
	}
}

static void side_run(struct side *s)
{
	struct error e = ERROR_INIT;
	struct batch *batches[MAX_THREADS];
	size_t n = s->p.n_threads;

	assert_ok(region_inject(&s->region, &s->threads[0].task, 0, 4 << 20, &e), &e);
	for (size_t i = 0; i < n; i++) {
		assert_ok(runner_start(&s->runners[i], s->region, &s->threads[i].task, &e), &e);
		batches[i] = &s->batches[i];
	}
	assert_ok(runner_run_all(s->runners, batches, n, &e), &e);
	for (size_t i = 0; i < n; i++)
		assert_ok(runner_stop(s->runners[i], &e), &e);
}

static bool in_scope(const struct state_kind *k, size_t thread)
{
	return k->scope == KIND_THREAD || (k->scope == KIND_PROCESS && thread == 0);
}

/* All of @kinds (NULL-terminated) of a process; it runs on afterwards. */
UNUSED static void capture(pid_t pid, const struct state_kind *const *kinds, struct snapshot *ret)
{
	struct error e = ERROR_INIT;
	struct capture c = {.snapshot = ret};
	struct side s;

	memset(ret, 0, sizeof(*ret));
	side_stop(&s, pid, false);
	for (size_t i = 0; i < s.p.n_threads; i++)
		for (size_t k = 0; kinds[k]; k++)
			if (in_scope(kinds[k], i) && kinds[k]->ask)
				assert_ok(kinds[k]->ask(&c, &s.p, s.list[i], &s.batches[i], &s.states[i][k],
							&e),
					  &e);
	side_run(&s);
	for (size_t i = 0; i < s.p.n_threads; i++)
		for (size_t k = 0; kinds[k]; k++)
			if (in_scope(kinds[k], i))
				assert_ok(kinds[k]->take(&c, &s.p, s.list[i], &s.batches[i], s.states[i][k],
							 &e),
					  &e);
	assert_ok(region_remove(s.region, &e), &e);
	for (size_t i = 0; i < s.p.n_threads; i++) {
		assert_ok(task_release(&s.threads[i].task, &e), &e);
		batch_deinit(&s.batches[i]);
		for (size_t k = 0; k < MAX_KINDS; k++)
			free(s.states[i][k]);
	}
}

/* Whose records they are: those of @s instead of those of the source. */
static void rename_records(struct snapshot *snapshot, const struct side *s)
{
	pid_t old[MAX_THREADS];
	size_t n = 0;

	for (size_t i = 0; i < snapshot->n; i++) {
		struct snapshot_record *r = &snapshot->r[i];
		size_t j = 0;

		r->pid = s->p.pid;
		if (!r->tid)
			continue;
		while (j < n && old[j] != r->tid)
			j++;
		if (j == n)
			old[n++] = r->tid;
		assert_true(j < s->p.n_threads);
		r->tid = s->threads[j].task.tid;
	}
}

/* Everything into another process, which then runs on: from where it was, or, with kind_regs, from the new
 * registers. @prepared, may be NULL, is called before it is let go. */
UNUSED static void apply(pid_t pid, const struct state_kind *const *kinds, struct snapshot *snapshot,
			 void (*prepared)(struct side *s))
{
	struct error e = ERROR_INIT;
	struct rebuild r = {.snapshot = snapshot};
	struct side s;

	side_stop(&s, pid, true);
	rename_records(snapshot, &s);
	for (size_t i = 0; i < s.p.n_threads; i++) {
		for (size_t k = 0; kinds[k]; k++) {
			pid_t tid = kinds[k]->scope == KIND_THREAD ? s.threads[i].task.tid : 0;
			ProtobufCMessage *m = snapshot_find(snapshot, kinds[k]->type, pid, tid);

			if (!in_scope(kinds[k], i) || !m)
				continue;
			if (kinds[k]->check)
				assert_ok(kinds[k]->check(&r, pid, tid, m, &e), &e);
			if (kinds[k]->build)
				assert_ok(kinds[k]->build(&r, &s.p, s.list[i], m, &s.batches[i], &e), &e);
		}
	}
	side_run(&s);
	assert_ok(region_remove(s.region, &e), &e);
	for (size_t i = 0; i < s.p.n_threads; i++) {
		assert_ok(task_restore(&s.threads[i].task, &e), &e);
		for (size_t k = 0; kinds[k]; k++) {
			pid_t tid = kinds[k]->scope == KIND_THREAD ? s.threads[i].task.tid : 0;
			ProtobufCMessage *m = snapshot_find(snapshot, kinds[k]->type, pid, tid);

			if (in_scope(kinds[k], i) && m && kinds[k]->finish)
				assert_ok(kinds[k]->finish(&r, &s.p, s.list[i], m, &e), &e);
		}
	}
	if (prepared)
		prepared(&s);
	for (size_t i = 0; i < s.p.n_threads; i++) {
		assert_ok(task_release(&s.threads[i].task, &e), &e);
		batch_deinit(&s.batches[i]);
	}
}

/* --- comparing -------------------------------------------------------------------------------------------
 */
UNUSED static void assert_same_messages(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	assert_non_null(a);
	assert_non_null(b);
	size_t n_a = protobuf_c_message_get_packed_size(a), n_b = protobuf_c_message_get_packed_size(b);
	cleanup_free uint8_t *p_a = xmalloc(n_a), *p_b = xmalloc(n_b);

	protobuf_c_message_pack(a, p_a);
	protobuf_c_message_pack(b, p_b);
	if (n_a != n_b || memcmp(p_a, p_b, n_a) != 0)
		print_error("%s differs\n", a->descriptor->name);
	assert_int_equal(n_a, n_b);
	assert_memory_equal(p_a, p_b, n_a);
}

/* Both snapshots hold the same, with the same owners (rename_records has been at work). */
UNUSED static void assert_same_snapshots(const struct snapshot *a, const struct snapshot *b)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++)
		assert_same_messages(a->r[i].message,
				     snapshot_find(b, a->r[i].type, a->r[i].pid, a->r[i].tid));
}

/* From one process to another, and there again what was here. */
UNUSED static void move_and_compare(pid_t from, pid_t to, const struct state_kind *const *kinds)
{
	struct snapshot before, after;

	capture(from, kinds, &before);
	apply(to, kinds, &before, NULL);
	capture(to, kinds, &after);
	assert_same_snapshots(&before, &after);
	snapshot_deinit(&before);
	snapshot_deinit(&after);
}
