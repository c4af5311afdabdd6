/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The region: one shared anonymous mapping made in the target by one injected mmap; the host maps the same
 * memory through /proc/PID/map_files, so no descriptor is ever opened in the target.
 *
 * The log (freeze/rescue.h) is told before each step.  The order of the removal matters: threads
 * are put back to their own registers while the code they ran is still mapped, and the last one unmaps it
 * from outside (freeze/syscall.c), so that at no moment a thread's next instruction is missing.
 */
#include "parasite/internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "procfs/procfs.h"

static_assert(sizeof(pthread_mutex_t) <= 64, "the mutex must fit into the header");
static_assert(offsetof(pthread_mutex_t, __data.__lock) == 0, "its first word is the futex");

#define LOWEST     0x100000000ull /* leave the first 4 GiB alone: MAP_32BIT, programs at fixed addresses */
#define MARGIN     (64ull << 20)  /* room for neighbours to grow */
#define REGION_MAX (1ull << 30)

int blob_code(const uint8_t **ret, size_t *ret_size, struct error *e)
{
	static char *code;
	static ssize_t size;

	if (!code) {
		cleanup_free char *path = NULL;
		int r = paths_find("parasite.bin", &path, e);

		if (r < 0)
			return r;
		size = read_file(path, &code);
		if (size < 0)
			return error_set(e, (int)-size, "%s", path);
		static const uint32_t ident[2] = {PB_MAGIC, PB_VERSION};

		if (size < (ssize_t)(PB_OFF_MAGIC + sizeof(ident)) || size > (ssize_t)PB_CODE_MAX ||
		    memcmp(code + PB_OFF_MAGIC, ident, sizeof(ident)) != 0) {
			free(TAKE_PTR(code));
			return error_say(e, ENOEXEC, "%s does not belong to this version of ferry", path);
		}
	}
	*ret = (const uint8_t *)code;
	*ret_size = (size_t)size;
	return 0;
}

size_t region_size_for(size_t n_runners, size_t batch_bytes)
{
	return PAGE_ROUND_UP(ARENA_BASE + n_runners * SLOT_SIZE + batch_bytes + 2 * PAGE_SIZE_BYTES);
}

uint64_t region_addr(const struct region *r)
{
	return r->addr;
}

uint64_t region_size(const struct region *r)
{
	return r->size;
}

uint64_t region_syscall_insn(const struct region *r)
{
	return r->addr + PB_OFF_SYSCALL;
}

/* --- in ------------------------------------------------------------------------------------------ */

/* The middle of the largest hole: nothing grows that far, and the kernel gives out other addresses first. */
static int find_place(pid_t tid, size_t size, uint64_t *ret, struct error *e)
{
	struct proc_maps maps = {0};
	uint64_t best = 0, best_start = 0, from = LOWEST;
	int r = proc_maps_read(tid, false, &maps, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i <= maps.n; i++) {
		uint64_t to = i < maps.n ? MIN(maps.v[i].start, arch_task_size()) : arch_task_size();

		if (to > from && to - from > best) {
			best = to - from;
			best_start = from;
		}
		if (i < maps.n)
			from = MAX(from, maps.v[i].end);
	}
	proc_maps_deinit(&maps);
	if (best < size + 2 * MARGIN)
		return error_say(e, ENOMEM, "pid %d: no room for %zu bytes in its address space", tid, size);
	*ret = (best_start + (best - size) / 2) & ~(PAGE_SIZE_BYTES - 1);
	return 0;
}

static int run_mmap(struct task *t, uint64_t addr, size_t size, int how, struct error *e)
{
	uint64_t args[6] = {
		addr,  size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS | (unsigned)how,
		~0ull, 0};
	int64_t result;
	int r = task_syscall(t, SYS_mmap, args, &result, NULL, NULL, e);

	if (r < 0)
		return r;
	if ((uint64_t)result == addr)
		return 0;
	if (result < 0)
		return error_set(e, (int)-result, "pid %d: mmap of %zu bytes at %#lx in the target", t->pid,
				 size, (unsigned long)addr);
	return error_say(e, EEXIST, "pid %d: mmap at %#lx went to %#lx", t->pid, (unsigned long)addr,
			 (unsigned long)result);
}

static int map_here(struct region *r, pid_t tid, struct error *e)
{
	cleanup_free char *path = xasprintf("/proc/%d/map_files/%lx-%lx", tid, (unsigned long)r->addr,
					    (unsigned long)(r->addr + r->size));
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "%s", path);
	void *map = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return error_set(e, errno, "mapping %s", path);
	r->map = map;
	return 0;
}

/* A robust mutex that this thread holds as long as the region exists: its death is seen inside. The kernel
 * wakes waiters of a word that says it has some. */
static int hold_mutex(struct region *r, struct pb_header *h, struct error *e)
{
	pthread_mutexattr_t attr;
	pthread_mutex_t *m = (pthread_mutex_t *)&h->host;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	int err = pthread_mutex_init(m, &attr);

	if (err == 0)
		err = pthread_mutex_lock(m);
	pthread_mutexattr_destroy(&attr);
	if (err)
		return error_set(e, err, "pid %d: mutex of the parasite", r->pid);
	__atomic_fetch_or(&h->host, FUTEX_WAITERS, __ATOMIC_SEQ_CST);
	r->mutex_held = true;
	return 0;
}

static int fill(struct region *r, struct error *e)
{
	struct pb_header *h = (struct pb_header *)(r->map + PB_CODE_MAX);
	const uint8_t *code;
	size_t size;
	int err = blob_code(&code, &size, e);

	if (err < 0)
		return err;
	memcpy(r->map, code, size);
	h->magic = PB_MAGIC;
	h->version = PB_VERSION;
	h->size = r->size;
	return r->skeleton ? 0 : hold_mutex(r, h, e);
}

static struct region *region_new(struct task *t, uint64_t addr, size_t size)
{
	struct region *r = xcalloc(1, sizeof(*r));

	r->pid = t->pid;
	r->addr = addr;
	r->size = size;
	r->owner = t;
	r->skeleton = t->skeleton;
	r->arena = ARENA_BASE;
	r->n_slots = (size - ARENA_BASE) / SLOT_SIZE;
	r->slots = xcalloc(r->n_slots, 1);
	return r;
}

static int run_munmap(struct region *r, struct task *t, struct error *e)
{
	int64_t result = 0;
	int err = task_syscall(t, SYS_munmap, (uint64_t[6]){r->addr, r->size}, &result, NULL, NULL, e);

	if (err == 0 && result < 0)
		err = error_set(e, (int)-result, "pid %d: munmap of the parasite", t->pid);
	if ((err == 0 || err == -ESRCH) && !r->skeleton)
		rescue_clear_region(r->pid);
	return err;
}

static int inject(struct region **ret, struct task *t, uint64_t addr, size_t size, int how, struct error *e)
{
	struct region *r = region_new(t, addr, size);
	const uint8_t *code;
	int err = blob_code(&code, &(size_t){0}, e);

	if (err == 0 && !t->skeleton) {
		err = task_save(t, e);
		rescue_note_region(t->pid, addr, size);
	}
	if (err == 0)
		err = run_mmap(t, addr, size, how, e);
	if (err < 0) {
		if (!t->skeleton)
			rescue_clear_region(t->pid);
		region_free(r);
		return err;
	}
	err = map_here(r, t->tid, e);
	if (err == 0)
		err = fill(r, e);
	if (err < 0) {
		struct error ignored = ERROR_INIT;

		run_munmap(r, t, &ignored);
		region_free(r);
		return err;
	}
	if (t->skeleton) {
		t->syscall_insn = region_syscall_insn(r);
		t->spin = 0;
	}
	*ret = r;
	return 0;
}

int region_inject(struct region **ret, struct task *t, uint64_t addr, size_t size, struct error *e)
{
	int err = 0;

	size = PAGE_ROUND_UP(MAX(size, region_size_for(1, 0)));
	if (size > REGION_MAX)
		return error_say(e, EINVAL, "a parasite of %zu bytes is too large", size);
	if (!addr)
		err = find_place(t->tid, size, &addr, e);
	if (err == 0)
		err = inject(ret, t, addr, size, MAP_FIXED_NOREPLACE, e);
	return err == -ESRCH ? error_say(e, ESRCH, "pid %d: thread %d died", t->pid, t->tid) : err;
}

/* The instruction that makes the call vanishes with it; the thread is held at the exit of the call, and
 * the new mapping has the same instruction at the same place before it goes on. */
int region_inject_over(struct region **ret, struct task *t, const struct region *parents, struct error *e)
{
	if (!t->skeleton)
		return error_say(e, EINVAL, "pid %d is not a skeleton", t->pid);
	t->syscall_insn = region_syscall_insn(parents);
	t->spin = 0;
	return inject(ret, t, parents->addr, parents->size, MAP_FIXED, e);
}

/* --- out ----------------------------------------------------------------------------------------- */

void region_free(struct region *r)
{
	if (!r)
		return;
	while (r->n_runners) {
		struct runner *w = r->runners[--r->n_runners];

		free(w);
	}
	if (r->mutex_held)
		pthread_mutex_unlock(
			(pthread_mutex_t *)(r->map + PB_CODE_MAX + offsetof(struct pb_header, host)));
	if (r->map)
		munmap(r->map, r->size);
	free(r->runners);
	free(r->slots);
	free(r);
}

int region_remove(struct region *r, struct error *e)
{
	struct task *last = r->owner->state == TASK_STOPPED ? r->owner : NULL;
	cleanup_free struct task **tasks = xcalloc(r->n_runners + 1, sizeof(*tasks));
	size_t n = 0;
	int err = 0;

	/* All are asked to stop before the first is waited for. */
	for (size_t i = 0; i < r->n_runners; i++) {
		runner_rest(r->runners[i]);
		if (r->runners[i]->task->state == TASK_RUNNING)
			(void)task_interrupt(r->runners[i]->task, e);
	}
	while (r->n_runners) {
		struct task *t = r->runners[r->n_runners - 1]->task;
		int one = runner_stop(r->runners[r->n_runners - 1], e);

		if (one < 0 && one != -ESRCH && err == 0)
			err = one;
		if (t->state == TASK_STOPPED) {
			tasks[n++] = t;
			if (!last || t == r->owner)
				last = t;
		}
	}
	for (size_t i = 0; i < n; i++)
		if (tasks[i] != last && tasks[i]->saved) {
			int one = task_restore(tasks[i], e);

			err = err ? err : one;
		}
	if (last) {
		int one = last->skeleton ? 0 : task_save(last, e);

		if (one == 0)
			one = run_munmap(r, last, e);
		if (last->skeleton)
			last->syscall_insn = 0;
		else if (one != -ESRCH) {
			int undo = task_restore(last, e);

			one = one ? one : undo;
		}
		err = err ? err : one == -ESRCH ? 0 : one;
	} else {
		/* Nobody left to unmap it: the process is dead. */
		rescue_clear_region(r->pid);
	}
	region_free(r);
	return err;
}
