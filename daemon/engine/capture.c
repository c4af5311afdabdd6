/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capturing state from the frozen target: the parasite goes into every process, every thread runs one batch
 * with the questions of all kinds, all at once, and the kinds read the answers.
 */
#include "engine/source.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/util.h"
#include "parasite/region.h"
#include "proto/task.pb-c.h"
#include "state/files/files.h"

#define BATCH_SPACE (64u << 10) /* per thread: mailbox, stack and the batches of all kinds */

#define FD_SPACE (2 * sizeof(struct pb_entry))

struct thread_capture { /* thread->data while captured */
	struct runner *runner;
	struct batch batch;
	void **states; /* one per kind */
};

static size_t count_kinds(void)
{
	size_t n = 0;

	while (state_kinds[n])
		n++;
	return n;
}

static bool concerns(const struct state_kind *k, bool leader)
{
	return k->scope == KIND_THREAD || (k->scope == KIND_PROCESS && leader);
}

static int ask_thread(struct session *s, struct process *p, struct thread *t, bool leader, struct error *e)
{
	struct thread_capture *tc = t->data;

	for (size_t i = 0; state_kinds[i]; i++) {
		const struct state_kind *k = state_kinds[i];

		if (!concerns(k, leader) || !k->ask)
			continue;
		int r = k->ask(&s->capture, p, t, &tc->batch, &tc->states[i], e);

		if (r < 0)
			return error_prefix(e, "pid %d tid %d: %s", p->pid, t->task.tid, k->name);
	}
	return 0;
}

static int take_thread(struct session *s, struct process *p, struct thread *t, bool leader, struct error *e)
{
	struct thread_capture *tc = t->data;

	for (size_t i = 0; state_kinds[i]; i++) {
		const struct state_kind *k = state_kinds[i];

		if (!concerns(k, leader) || !k->take)
			continue;
		int r = k->take(&s->capture, p, t, &tc->batch, tc->states[i], e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* The leader asks for a flag of every descriptor. */
static size_t region_size_of(const struct process *p)
{
	size_t size = (256u << 10) + p->n_threads * BATCH_SPACE + files_count(process_living(p)) * FD_SPACE;

	return PAGE_ROUND_UP(size);
}

/* A place where the regions of all processes fit one behind the other, in a part of the address space that
 * none of them uses: so that no two have the same address, by which a userfaultfd's memory is told. 0: any
 * place will do, or there is none. */
static uint64_t place_regions(struct session *s)
{
	uint64_t total = 0;

	for (size_t i = 0; i < s->tree->n; i++)
		total += region_size_of(s->tree->procs[i]);
	for (uint64_t at = 0x200000000000ull; s->memory->userfaults && at < 0x500000000000ull;
	     at += total + (1ull << 36)) {
		bool used = false;

		for (size_t i = 0; i < s->tree->n && !used; i++) {
			const struct memory_process *mp = s->tree->procs[i]->data;

			used = mp && mp->mm && layout_overlaps(mp->mm, at, at + total);
		}
		if (!used)
			return at;
	}
	return 0;
}

static int enter_process(struct session *s, struct process *p, uint64_t at, struct error *e)
{
	size_t n_kinds = count_kinds();
	size_t size = region_size_of(p);
	struct region *region;
	int r = 0;

	for (size_t i = 0; i < p->n_threads && r >= 0; i++)
		r = task_save(&p->threads[i]->task, e);
	if (r >= 0)
		r = region_inject(&region, &p->threads[0]->task, at, size, e);
	if (r < 0)
		return r;
	((struct memory_process *)p->data)->region = region;
	for (size_t i = 0; i < p->n_threads && r >= 0; i++) {
		struct thread_capture *tc = xcalloc(1, sizeof(*tc));

		tc->states = xcalloc(n_kinds, sizeof(*tc->states));
		p->threads[i]->data = tc;
		r = ask_thread(s, p, p->threads[i], i == 0, e);
		if (r >= 0)
			r = runner_start(&tc->runner, region, &p->threads[i]->task, e);
	}
	return r;
}

static int run_all(struct session *s, struct error *e)
{
	size_t n = 0, cap = 0;

	for (size_t i = 0; i < s->tree->n; i++)
		cap += s->tree->procs[i]->n_threads;
	cleanup_free struct runner **w = xcalloc(cap, sizeof(*w));
	cleanup_free struct batch **b = xcalloc(cap, sizeof(*b));

	for (size_t i = 0; i < s->tree->n; i++)
		for (size_t j = 0; j < s->tree->procs[i]->n_threads; j++) {
			struct thread_capture *tc = s->tree->procs[i]->threads[j]->data;

			if (!tc || !tc->batch.n)
				continue;
			w[n] = tc->runner;
			b[n++] = &tc->batch;
		}
	return runner_run_all(w, b, n, e);
}

static ProtobufCMessage *copy_of(const ProtobufCMessage *m)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	cleanup_free uint8_t *bytes = xmalloc(n + 1);

	protobuf_c_message_pack(m, bytes);
	return protobuf_c_message_unpack(m->descriptor, NULL, n, bytes);
}

/* What can still be seen of a first thread that has ended, and of what it is asked when a signal is sent: it
 * has the credentials of the others, and a name of its own.  Nothing of it is left that could do anything. */
static void describe_ended_leader(struct session *s, const struct process *p)
{
	static const uint32_t kept[] = {FERRY__RECORD_TYPE__RECORD_CREDS, FERRY__RECORD_TYPE__RECORD_SCHED,
					FERRY__RECORD_TYPE__RECORD_THREAD};

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		const ProtobufCMessage *m = snapshot_find(s->capture.snapshot, kept[i], p->pid, p->living);
		ProtobufCMessage *copy = m ? copy_of(m) : NULL;

		if (!copy)
			continue;
		if (kept[i] == FERRY__RECORD_TYPE__RECORD_THREAD) {
			Ferry__ThreadState *t = (Ferry__ThreadState *)copy;

			t->robust_list = t->robust_list_len = t->clear_child_tid = t->rseq_addr = 0;
			t->altstack_sp = t->altstack_size = 0;
			t->altstack_flags = SS_DISABLE;
			free(t->comm);
			t->comm = xstrdup(p->comm);
		}
		snapshot_put(s->capture.snapshot, kept[i], p->pid, p->pid, copy);
	}
}

int capture_state(struct session *s, struct error *e)
{
	struct tree *t = s->tree;
	uint64_t at = place_regions(s);
	int r = s->memory->userfaults && !at ? error_say(e, ENOMEM,
							 "pid %d: no part of the address space is free in "
							 "all processes (userfaultfd)",
							 s->root)
					     : 0;

	for (size_t i = 0; i < t->n && r >= 0; i++) {
		if (t->procs[i]->data)
			r = enter_process(s, t->procs[i], at, e);
		at += at ? region_size_of(t->procs[i]) : 0;
	}
	if (r >= 0)
		r = run_all(s, e);
	/* Some kinds read with ptrace what the parasite could not: every thread is stopped again. */
	for (size_t i = 0; i < t->n && r >= 0; i++)
		for (size_t j = 0; j < t->procs[i]->n_threads && r >= 0; j++) {
			struct thread_capture *tc = t->procs[i]->threads[j]->data;

			if (tc && tc->runner)
				r = runner_stop(TAKE_PTR(tc->runner), e);
		}
	/* Kinds of the tree first: they give ids that those of processes refer to. */
	for (size_t i = 0; state_kinds[i] && r >= 0; i++)
		if (state_kinds[i]->scope == KIND_TREE && state_kinds[i]->take)
			r = state_kinds[i]->take(&s->capture, NULL, NULL, NULL, NULL, e);
	for (size_t i = 0; i < t->n && r >= 0; i++)
		for (size_t j = 0; j < t->procs[i]->n_threads && r >= 0; j++)
			if (t->procs[i]->threads[j]->data)
				r = take_thread(s, t->procs[i], t->procs[i]->threads[j], j == 0, e);
	for (size_t i = 0; i < t->n && r >= 0; i++)
		if (t->procs[i]->living)
			describe_ended_leader(s, t->procs[i]);
	return r;
}

static int leave_process(struct process *p, struct error *e)
{
	struct memory_process *mp = p->data;
	size_t n_kinds = count_kinds();
	int first = 0;

	for (size_t i = 0; i < p->n_threads; i++) {
		struct thread_capture *tc = p->threads[i]->data;

		if (!tc)
			continue;
		int r = tc->runner ? runner_stop(tc->runner, e) : 0;

		if (r < 0 && r != -ESRCH && !first)
			first = r;
		batch_deinit(&tc->batch);
		for (size_t j = 0; j < n_kinds; j++)
			free(tc->states[j]);
		free(tc->states);
		free(tc);
		p->threads[i]->data = NULL;
	}
	if (mp && mp->region) {
		int r = region_remove(mp->region, e);

		mp->region = NULL;
		if (r < 0 && !first)
			first = r;
	}
	return first;
}

int capture_undo(struct session *s, struct error *e)
{
	int first = 0;

	for (size_t i = 0; i < s->tree->n; i++) {
		int r = leave_process(s->tree->procs[i], e);

		if (r < 0 && !first)
			first = r;
	}
	return first;
}
