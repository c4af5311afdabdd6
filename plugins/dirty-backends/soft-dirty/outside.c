/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes of other processes between asking and resetting.
 *
 * The target stands still from begin to end of a round, but process_vm_writev(2) and stores to /proc/PID/mem
 * do not: a page that one of them makes dirty after it was asked for, and before the reset, is told by
 * nobody. The kernel has no way to do both at once, and none to keep such writers out.  But it counts page
 * faults, and the first write to a page that is clean is one, by whom so ever: if none was counted meanwhile,
 * nothing was lost.
 *
 * What could go wrong, and why it does not:
 *  - Others have page faults, too.  Those of the target's memory are counted by its memory cgroup (version 2)
 * as well, where in a service or container nobody else runs; without that there is only the count of the
 * machine.  A fault too many is no harm: what may have been lost is compared in the next round.
 *  - A cgroup's count may be old by some events: reading cpu.stat brings it up to date, on the kernels where
 * an experiment in our own cgroup says so.
 *  - Our own thread's faults are taken off; they are fewer than what was counted for them, or as many: they
 * are read after the count at the beginning, and before it at the end.
 *  - A fault that was counted before the beginning and is not through yet (some kernels count first, some
 * last) holds the lock of the target's memory.  Between the count and the first look that lock is taken for
 * writing: it waits for all faults there are.  Any call on a userfaultfd of the target does so, also one that
 * finds nothing to do; the reset itself does so at the end.
 *
 * Where one of these cannot be had nothing is known, and every round is compared in the next one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "soft_dirty.h"
#include "target_uffd.h"

#define LOWEST      0x10000ull /* where programs have nothing */
#define EXPERIMENTS 32

static ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t got = -1;

	while (fd >= 0 && n < size - 1 && (got = read(fd, text + n, size - 1 - n)) > 0)
		n += (size_t)got;
	if (fd >= 0)
		close(fd);
	text[got < 0 ? 0 : n] = 0;
	return got < 0 ? -1 : (ssize_t)n;
}

/* --- the lock ---------------------------------------------------------------------------------------- */

static uint64_t first_address(pid_t pid)
{
	char path[64], text[64];

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	return strtoull(text, NULL, 16);
}

static uint64_t lowest_allowed(void)
{
	char text[32];
	uint64_t min = read_text("/proc/sys/vm/mmap_min_addr", text, sizeof(text)) > 0
			       ? strtoull(text, NULL, 10)
			       : LOWEST;

	return min < LOWEST ? LOWEST : (min + PAGE - 1) / PAGE * PAGE;
}

/* All page faults of the target's memory that had begun are through. */
static bool wait_for_faults(const struct outside *o)
{
	struct uffdio_range none = {o->lowest, PAGE};

	if (o->uffd < 0 || first_address(o->pid) < o->lowest + PAGE)
		return false;
	/* EINVAL: nothing is mapped there, which was found with the lock in hand. */
	return ioctl(o->uffd, UFFDIO_UNREGISTER, &none) == 0 || errno == EINVAL;
}

/* --- the count --------------------------------------------------------------------------------------- */

static bool count_in(const char *path, uint64_t *ret)
{
	static _Thread_local char text[32768];

	if (read_text(path, text, sizeof(text)) <= 0)
		return false;
	const char *line = strncmp(text, "pgfault ", 8) ? strstr(text, "\npgfault ") : text;

	if (!line)
		return false;
	*ret = strtoull(strchr(line, ' '), NULL, 10);
	return true;
}

static bool cgroup_of(const char *pid, char *ret, size_t size)
{
	char path[64], text[4096];

	snprintf(path, sizeof(path), "/proc/%s/cgroup", pid);
	if (read_text(path, text, sizeof(text)) <= 0)
		return false;
	const char *line = strncmp(text, "0::", 3) ? strstr(text, "\n0::") : text;

	if (!line)
		return false;
	line = strchr(line, '/');
	size_t n = line ? strcspn(line, "\n") : 0;

	if (!n || n >= size || memmem(line, n, "/..", 3))
		return false;
	memcpy(ret, line, n);
	ret[n] = 0;
	return true;
}

/* Where version 2 is mounted. */
static const char *cgroups(void)
{
	return access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ? "/sys/fs/cgroup"
								      : "/sys/fs/cgroup/unified";
}

/* The memory cgroup that counts for a process in @cgroup: its own, or one above it; not the root. */
static bool find_counting(const char *cgroup, char *ret, size_t size)
{
	char path[OUTSIDE_PATH + 64];

	snprintf(ret, size, "%s", cgroup);
	while (ret[0] && ret[1]) {
		snprintf(path, sizeof(path), "%s%s/memory.stat", cgroups(), ret);
		if (access(path, R_OK) == 0)
			return true;
		*strrchr(ret, '/') = 0;
	}
	return false;
}

static bool count_of_cgroup(const char *cgroup, uint64_t *ret)
{
	char path[OUTSIDE_PATH + 64], text[256];

	snprintf(path, sizeof(path), "%s%s/cpu.stat", cgroups(), cgroup);
	if (read_text(path, text, sizeof(text)) <= 0)
		return false;
	snprintf(path, sizeof(path), "%s%s/memory.stat", cgroups(), cgroup);
	return count_in(path, ret);
}

static bool counts_at_once(void)
{
	char own[OUTSIDE_PATH], counting[OUTSIDE_PATH];
	uint64_t before, after;
	bool works = cgroup_of("self", own, sizeof(own)) && find_counting(own, counting, sizeof(counting)) &&
		     count_of_cgroup(counting, &before);
	volatile char *p =
		mmap(NULL, EXPERIMENTS * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return false;
	madvise((void *)p, EXPERIMENTS * PAGE, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < EXPERIMENTS && works; i++) {
		works = count_of_cgroup(counting, &before);
		p[i * PAGE] = 1;
		works = works && count_of_cgroup(counting, &after) && after > before;
	}
	munmap((void *)p, EXPERIMENTS * PAGE);
	return works;
}

static bool cgroups_count(void)
{
	static atomic_int known;

	if (!atomic_load(&known))
		atomic_store(&known, counts_at_once() ? 1 : 2);
	return atomic_load(&known) == 1;
}

static uint64_t own_faults(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return (uint64_t)u.ru_minflt + (uint64_t)u.ru_majflt;
}

/* The cgroup to be asked; "": the machine. */
static void choose(const struct outside *o, char *ret, size_t size)
{
	char pid[16], cgroup[OUTSIDE_PATH];

	snprintf(pid, sizeof(pid), "%d", o->pid);
	if (!cgroups_count() || !cgroup_of(pid, cgroup, sizeof(cgroup)) || !find_counting(cgroup, ret, size))
		ret[0] = 0;
}

/* Are we in it? If that cannot be told our faults count as those of others. */
static bool counts_us(const char *counting)
{
	char own[OUTSIDE_PATH];
	size_t n = strlen(counting);

	return !n || (cgroup_of("self", own, sizeof(own)) && !strncmp(own, counting, n) &&
		      (!own[n] || own[n] == '/'));
}

static bool count(const char *counting, uint64_t *ret)
{
	return counting[0] ? count_of_cgroup(counting, ret) : count_in("/proc/vmstat", ret);
}

/* ----------------------------------------------------------------------------------------------------- */

void outside_open(struct outside *o, const struct dirty_target *t)
{
	struct uffdio_api api = {.api = UFFD_API};
	char unused[128];

	*o = (struct outside){.pid = t->pid, .lowest = lowest_allowed()};
	o->uffd = target_make_uffd(t, unused, sizeof(unused));
	if (o->uffd >= 0 && ioctl(o->uffd, UFFDIO_API, &api) < 0)
		outside_close(o);
}

void outside_close(struct outside *o)
{
	if (o->uffd >= 0)
		close(o->uffd);
	o->uffd = -1;
}

void outside_begin(struct outside *o)
{
	choose(o, o->counting, sizeof(o->counting));
	o->known = count(o->counting, &o->count);
	o->own = own_faults();
	o->known = o->known && wait_for_faults(o);
}

bool outside_none(const struct outside *o)
{
	char counting[OUTSIDE_PATH];
	uint64_t own = own_faults() - o->own, now;

	if (!o->known || !count(o->counting, &now))
		return false;
	choose(o, counting, sizeof(counting)); /* it may have been put into another one */
	return !strcmp(counting, o->counting) && now - o->count == (counts_us(counting) ? own : 0);
}
