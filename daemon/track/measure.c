/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child does nothing but store to each of its pages when it is told, and says how long that took; in
 * between it is followed like any target.  Times are those of the processor (but for the stop), and the best
 * of a few: what else the machine does only ever adds.
 */
#include "track/measure.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "freeze/task.h"
#include "track/hashes.h"
#include "track/trial.h"

#define SIZE    (32ul << 20)
#define PAGES   (SIZE / PAGE_SIZE_BYTES)
#define REPEATS 3

struct lab {
	const struct dirty_backend_ops *ops;
	struct dirty_session *session;
	pid_t pid;
	int pidfd, mem_fd, go, done;
	struct dirty_vma vma;
	struct page_hashes *hashes;
	uint8_t *buffer; /* one page run */
	struct task task;
	uint64_t stop_ns;
	char why[256];
};

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn)) static void child(char *memory, int go, int done)
{
	unsigned char round;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(go, &round, 1) == 1) {
		uint64_t t0 = cpu_ns();

		for (size_t i = 0; i < PAGES; i++)
			*(volatile unsigned char *)(memory + i * PAGE_SIZE_BYTES) = round;
		uint64_t ns = cpu_ns() - t0;

		if (write(done, &ns, sizeof(ns)) != sizeof(ns))
			break;
	}
	_exit(0);
}

static int lab_open(struct lab *l, struct error *e)
{
	int go[2], done[2];
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return error_set(e, errno, "no memory to measure with");
	madvise(p, SIZE, MADV_NOHUGEPAGE);
	madvise(p, SIZE, MADV_DONTDUMP); /* a VMA of its own */
	l->vma =
		(struct dirty_vma){.start = (uintptr_t)p, .end = (uintptr_t)p + SIZE, .kind = DIRTY_VMA_ANON};
	if (pipe2(go, O_CLOEXEC) < 0 || pipe2(done, O_CLOEXEC) < 0) {
		munmap(p, SIZE);
		return error_set(e, errno, "pipe");
	}
	l->pid = fork();
	if (l->pid == 0) {
		close(go[1]);
		child(p, go[0], done[1]);
	}
	int err = errno;

	munmap(p, SIZE);
	close(go[0]);
	close(done[1]);
	l->go = go[1];
	l->done = done[0];
	if (l->pid < 0)
		return error_set(e, err, "fork");
	cleanup_free char *mem = xasprintf("/proc/%d/mem", l->pid);

	l->pidfd = sys_pidfd_open(l->pid, 0);
	l->mem_fd = open(mem, O_RDONLY | O_CLOEXEC);
	if (l->pidfd < 0 || l->mem_fd < 0)
		return error_set(e, l->pidfd < 0 ? -l->pidfd : errno, "open a child to measure with");
	l->hashes = page_hashes_new();
	l->buffer = xmalloc(PAGE_SIZE_BYTES * 64);
	return 0;
}

static void lab_close(struct lab *l)
{
	trial_calls("detach()");
	if (l->session)
		l->ops->detach(l->session);
	if (l->pid > 0) {
		kill(l->pid, SIGKILL);
		waitpid(l->pid, NULL, __WALL);
	}
	const int fds[] = {l->pidfd, l->mem_fd, l->go, l->done};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	page_hashes_free(l->hashes);
	free(l->buffer);
}

static int stop(struct lab *l, struct error *e)
{
	memset(&l->task, 0, sizeof(l->task));
	int r = task_seize(&l->task, l->pid, l->pid, false, e);

	if (r >= 0)
		r = task_interrupt(&l->task, e);
	if (r >= 0)
		r = task_wait_stopped(&l->task, 5000, e);
	if (r == 0)
		return 0;
	return error_is(e) ? -e->code : error_say(e, ESRCH, "the child to measure with is gone");
}

static int64_t inject(void *ctx, long nr, const uint64_t args[6])
{
	struct error ignore = ERROR_INIT;
	int64_t result;
	int r = task_syscall(ctx, nr, args, &result, NULL, NULL, &ignore);

	return r < 0 ? r : result;
}

static int attach(struct lab *l, struct error *e)
{
	struct error undo = ERROR_INIT;
	const struct dirty_target t = {.pid = l->pid, .pidfd = l->pidfd, .ctx = &l->task, .syscall = inject};
	int r = stop(l, e);

	if (r >= 0)
		r = task_save(&l->task, e);
	if (r >= 0) {
		trial_calls("attach()");
		r = l->ops->attach(&t, &l->session, l->why, sizeof(l->why));
		if (r < 0)
			error_say(e, -r, "%s", l->why);
	}
	int u = l->task.seized ? task_release(&l->task, r < 0 ? &undo : e) : 0;

	return r < 0 ? r : u;
}

/* Store to each page: how long that took. */
static int touch(struct lab *l, uint64_t *ret_ns, struct error *e)
{
	static unsigned char n;
	int r = ++n ? write_full(l->go, &n, 1) : write_full(l->go, "z", 1);

	if (r >= 0)
		r = read_full(l->done, ret_ns, sizeof(*ret_ns));
	return r < 0 ? error_set(e, -r, "the child to measure with does not answer") : 0;
}

/* What a copier does with pages that the backend is not sure of. */
static int compare(struct lab *l, const struct dirty_range *ranges, ssize_t n, struct error *e)
{
	for (ssize_t i = 0; i < n; i++)
		for (uint64_t at = ranges[i].start; at < ranges[i].end;) {
			size_t want = MIN(ranges[i].end - at, PAGE_SIZE_BYTES * 64);

			if (!(ranges[i].flags & DIRTY_UNSURE))
				break;
			if (pread_full(l->mem_fd, l->buffer, want, (off_t)at) < 0)
				return error_set(e, EIO, "read a child to measure with");
			for (size_t k = 0; k < want; k += PAGE_SIZE_BYTES)
				page_hashes_update(l->hashes, at + k, l->buffer + k);
			at += want;
		}
	return 0;
}

static int collect(struct lab *l, enum dirty_collect_mode mode, bool first, struct error *e)
{
	const struct dirty_range *ranges = NULL;
	ssize_t n = 0;

	trial_calls("begin()");
	int r = l->ops->begin(l->session, mode, l->why, sizeof(l->why));

	trial_calls(first ? "arm()" : "collect()");
	if (r >= 0 && first)
		r = l->ops->arm(l->session, &l->vma, l->why, sizeof(l->why));
	else if (r >= 0)
		n = l->ops->collect(l->session, &l->vma, mode, &ranges, l->why, sizeof(l->why));
	if (r == 1)
		return error_say(e, ENOTSUP, "it does not track ordinary memory");
	if (r >= 0 && n >= 0) {
		r = compare(l, ranges, n, e);
		if (r < 0)
			return r;
		trial_calls("end()");
		r = l->ops->end(l->session, mode, l->why, sizeof(l->why));
	}
	if (r < 0 || n < 0)
		return error_say(e, r < 0 ? -r : (int)-n, "%s", l->why);
	return 0;
}

/* One pass; *ret_ns: without the stop, which is measured apart. */
static int pass(struct lab *l, enum dirty_collect_mode mode, bool first, uint64_t *ret_ns, struct error *e)
{
	bool stops = mode == DIRTY_FINAL || !(l->ops->caps & DIRTY_CAP_RUNNING);
	struct error undo = ERROR_INIT;
	uint64_t t0 = now_ns();
	int r = stops ? stop(l, e) : 0;
	uint64_t t1 = now_ns(), begin = cpu_ns();

	if (r >= 0)
		r = collect(l, mode, first, e);
	uint64_t t2 = now_ns();

	*ret_ns = cpu_ns() - begin;
	int u = stops && l->task.seized ? task_release(&l->task, r < 0 ? &undo : e) : 0;

	l->stop_ns = t1 - t0 + now_ns() - t2;
	return r < 0 ? r : u;
}

static void best(uint64_t *ret, uint64_t ns)
{
	*ret = *ret ? MIN(*ret, ns) : ns;
}

static uint64_t per_gib(uint64_t ns)
{
	return ns * ((1ul << 30) / SIZE);
}

static int measure(struct lab *l, struct backend_cost *ret, struct error *e)
{
	uint64_t ns, plain = 0, tracked = 0, quiet = 0, busy = 0, last = 0, stop_ns = 0;
	int r = touch(l, &ns, e);

	for (int i = 0; i < REPEATS && r >= 0; i++) {
		r = touch(l, &ns, e);
		best(&plain, ns);
	}
	if (r >= 0)
		r = attach(l, e);
	if (r >= 0)
		r = pass(l, DIRTY_ROUND, true, &ns, e);
	for (int i = 0; i < REPEATS && r >= 0; i++) {
		r = touch(l, &ns, e);
		best(&tracked, ns);
		if (r >= 0)
			r = pass(l, DIRTY_ROUND, false, &ns, e);
		best(&busy, ns);
		if (r >= 0)
			r = pass(l, DIRTY_ROUND, false, &ns, e);
		best(&quiet, ns);
		best(&stop_ns, l->stop_ns);
		if (r >= 0)
			r = pass(l, DIRTY_FINAL, false, &ns, e);
		best(&last, ns);
	}
	*ret = (struct backend_cost){.round_ns_gib = per_gib(quiet),
				     .dirty_ns_gib = per_gib(busy),
				     .final_ns_gib = per_gib(last),
				     .store_ns = tracked > plain ? (tracked - plain) / PAGES : 0,
				     .stop_ns = l->ops->caps & DIRTY_CAP_RUNNING ? 0 : stop_ns};
	return r < 0 ? r : 0;
}

struct trial {
	const struct backend *backend;
	struct backend_cost cost;
	struct error e;
	int result;
};

static void measure_here(void *object)
{
	struct trial *t = object;
	struct lab l = {.ops = t->backend->ops, .pidfd = -1, .mem_fd = -1, .go = -1, .done = -1};

	t->result = lab_open(&l, &t->e);
	if (t->result >= 0)
		t->result = measure(&l, &t->cost, &t->e);
	lab_close(&l);
}

int backend_measure(const struct backend *b, struct backend_cost *ret, struct error *e)
{
	struct trial t = {.backend = b, .e = *e};
	char how[128];
	int r = trial_run(measure_here, &t, sizeof(t), TRIAL_LIMIT_MS, how, sizeof(how));

	if (r < 0)
		return error_say(e, -r, "backend %s %s", b->path, how);
	*e = t.e;
	if (t.result < 0)
		return t.result;
	*ret = t.cost;
	return 0;
}
