/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kernels do that could make a tracker lie, or hang: one test each, with every backend that works here.
 * (docs/dirty-backends.md lists all of them, and where those are tested that need more than one moment.)
 *
 *	unit-track-dangers [DIRECTORY]
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <cmocka.h>

#include "told.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif
#define AREA  ((char *)0x200000000000ull)
#define PAGES 16
#define HUGE  (2ul << 20)

static const char *dir;
static bool guards; /* in file maps: this kernel has them */

static const struct dirty_vma area = {.start = 0x200000000000ull, .end = 0x200000000000ull + PAGES * P};

static char *map_at(char *p, size_t size, int flags, int fd)
{
	char *got = mmap(p, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);

	if (got == MAP_FAILED)
		_exit(70);
	return got;
}

static void fill(void)
{
	memset(map_at(AREA, PAGES * P, MAP_PRIVATE | MAP_ANONYMOUS, -1), 1, PAGES * P);
	madvise(AREA, PAGES * P, MADV_DONTDUMP); /* a VMA of its own */
}

/* --- an untracked VMA among tracked ones ------------------------------------------------------------ */

static void map_in_the_middle(void)
{
	AREA[P] = 2;
	map_at(AREA + 8 * P, P, MAP_PRIVATE | MAP_ANONYMOUS, -1)[0] = 3;
	AREA[14 * P] = 4;
}

/* A scan that fails in the middle has armed what came before: nothing may be taken for clean after it. */
static void test_untracked_in_the_middle(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {fill, map_in_the_middle};

	for (int mode = DIRTY_ROUND; mode <= DIRTY_FINAL; mode++) {
		uint32_t flags[PAGES] = {0};
		struct target t;

		begin(&t, steps);
		assert_int_equal(pass(&t, true, DIRTY_ROUND, &area, NULL), 0);
		tell(&t, 1);
		ssize_t n = pass(&t, false, mode, &area, flags);

		assert_true(n == -EPERM || (n > 0 && flags[1] & flags[8] & flags[14] & DIRTY_WRITTEN));
		end(&t);
	}
}

/* --- huge pages that are dropped whole -------------------------------------------------------------- */

static void fill_huge(void)
{
	map_at(AREA, HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	madvise(AREA, HUGE, MADV_HUGEPAGE);
	memset(AREA, 1, HUGE);
}

static void drop_huge(void)
{
	madvise(AREA, HUGE, MADV_DONTNEED);
}

static void test_dropped_huge_page(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {fill_huge, drop_huge};
	const struct dirty_vma v = {.start = area.start, .end = area.start + HUGE};
	static uint32_t flags[HUGE / P];
	struct target t;

	memset(flags, 0, sizeof(flags));
	begin(&t, steps);
	assert_int_equal(pass(&t, true, DIRTY_ROUND, &v, NULL), 0);
	assert_true(pass(&t, false, DIRTY_ROUND, &v, NULL) >= 0);
	tell(&t, 1);
	assert_true(pass(&t, false, DIRTY_FINAL, &v, flags) > 0);
	for (size_t i = 0; i < HUGE / P; i++)
		if ((flags[i] & (DIRTY_WRITTEN | DIRTY_PRESENT)) != DIRTY_WRITTEN)
			fail_msg("page %zu of a dropped huge page: flags %x", i, flags[i]);
	end(&t);
}

/* --- huge pages of the pool where no page table is -------------------------------------------------- */

static void map_hugetlb(void)
{
	/* Without a reservation, so that no page need be there. */
	mmap(AREA, 2 * HUGE, PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void test_empty_hugetlb(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {map_hugetlb};
	const struct dirty_vma v = {
		.start = area.start, .end = area.start + 2 * HUGE, .kind = DIRTY_VMA_HUGETLB};
	struct target t;

	begin(&t, steps);
	if ((backend.ops->kinds & DIRTY_KIND(v.kind)) && pass(&t, true, DIRTY_ROUND, &v, NULL) == 0) {
		assert_int_equal(pass(&t, false, DIRTY_ROUND, &v, NULL), 0);
		assert_true(pass(&t, false, DIRTY_FINAL, &v, NULL) >= 0);
	}
	end(&t);
}

/* --- guards in file maps ---------------------------------------------------------------------------- */

static void map_file(void)
{
	int fd = memfd_create("guarded", MFD_CLOEXEC);

	if (ftruncate(fd, PAGES * P) < 0)
		_exit(70);
	memset(map_at(AREA, PAGES * P, MAP_PRIVATE, fd), 1, PAGES * P);
	memset(map_at(AREA + HUGE, PAGES * P, MAP_SHARED, fd), 1, PAGES * P);
}

static void install_guards(void)
{
	if (madvise(AREA + P, 4 * P, MADV_GUARD_INSTALL) < 0 && errno != EINVAL)
		_exit(71);
	if (madvise(AREA + HUGE + P, 4 * P, MADV_GUARD_INSTALL) < 0 && errno != EINVAL)
		_exit(72);
}

static void remove_guards(void)
{
	madvise(AREA + P, 4 * P, MADV_GUARD_REMOVE);
	madvise(AREA + HUGE + P, 4 * P, MADV_GUARD_REMOVE);
	for (int i = 0; i < PAGES; i++)
		AREA[i * P]++, AREA[HUGE + i * P]++;
}

/* A call that the kernel would try for ever comes to its end all the same, while the tracking goes on. */
static void tell_patiently(const struct target *t, char n)
{
	struct pollfd done = {t->done, POLLIN, 0};

	assert_int_equal(write(t->go, &n, 1), 1);
	if (poll(&done, 1, 60000) != 1)
		fail_msg("the guards were never installed");
	assert_int_equal(read(t->done, &n, 1), 1);
}

static void test_guards_in_file_maps(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {map_file, install_guards, remove_guards};
	const struct dirty_vma v[] = {
		{area.start, area.end, DIRTY_VMA_PRIVATE_FILE, 0},
		{area.start + HUGE, area.end + HUGE, DIRTY_VMA_SHARED, 0},
	};
	uint32_t flags[PAGES] = {0};
	struct target t;

	begin(&t, steps);
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		assert_int_equal(pass(&t, true, DIRTY_ROUND, &v[i], NULL), 0);
	for (int round = 0; round < 5; round++) {
		tell_patiently(&t, 1);
		tell(&t, 2);
		for (size_t i = 0; i < ARRAY_SIZE(v); i++) /* protected once more */
			assert_true(pass(&t, false, DIRTY_ROUND, &v[i], NULL) > 0);
	}
	tell_patiently(&t, 1);
	assert_true(pass(&t, false, DIRTY_FINAL, &v[0], flags) > 0);
	for (int i = 0; i < PAGES; i++) /* what a guard has taken the place of is gone */
		assert_int_equal(!(flags[i] & DIRTY_PRESENT), guards && i >= 1 && i < 5);
	end(&t);
}

/* --- a program with a userfaultfd of its own ---------------------------------------------------------- */

static int own;

static void register_own(uint64_t mode)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
	struct uffdio_register reg = {.range = {area.start, PAGES * P}, .mode = mode};

	own = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (own < 0 || ioctl(own, UFFDIO_API, &api) < 0 || ioctl(own, UFFDIO_REGISTER, &reg) < 0)
		_exit(71);
}

static void fill_and_register(void)
{
	fill();
	register_own(UFFDIO_REGISTER_MODE_WP);
}

static void store_to_own(void)
{
	for (int i = 0; i < PAGES; i++)
		AREA[i * P] = 5;
}

/* Protected by us, the store would wait for a handler that knows nothing of it. */
static void test_own_userfaultfd(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {fill_and_register, store_to_own};
	struct target t;

	begin(&t, steps);
	ssize_t n = pass(&t, true, DIRTY_ROUND, &area, NULL);

	if (!strcmp(backend.ops->name, "uffd-wp"))
		assert_int_equal(n, 1);
	tell(&t, 1);
	end(&t);
}

/* --- a registration that went elsewhere --------------------------------------------------------------- */

#define ELSEWHERE (AREA + HUGE)
#define GROWN     (AREA + 4 * HUGE)

static void fill_two(void)
{
	memset(map_at(AREA, PAGES * P, MAP_SHARED | MAP_ANONYMOUS, -1), 1, PAGES * P);
	memset(map_at(GROWN, PAGES * P, MAP_PRIVATE | MAP_ANONYMOUS, -1), 1, PAGES * P);
}

/* Shared memory that moves, and a mapping that grows and loses what it was. */
static void move_and_grow(void)
{
	if (mremap(AREA, PAGES * P, PAGES * P, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE) != ELSEWHERE ||
	    mremap(GROWN, PAGES * P, 2 * PAGES * P, 0) != GROWN)
		_exit(73);
	munmap(GROWN, PAGES * P);
}

static void register_at_area(void)
{
	fill();
	register_own(UFFDIO_REGISTER_MODE_WP);
}

static bool shows_uw(pid_t pid, const struct dirty_vma *v)
{
	struct proc_maps maps;
	struct error e = ERROR_INIT;
	bool yes = false, found = false;

	assert_int_equal(proc_maps_read(pid, true, &maps, &e), 0);
	for (size_t i = 0; i < maps.n; i++) {
		if (maps.v[i].start != v->start || maps.v[i].end != v->end)
			continue;
		found = true;
		yes = maps.v[i].vmflags & PROC_VM_UFFD_WP;
	}
	proc_maps_deinit(&maps);
	assert_true(found);
	return yes;
}

/* What shows our write protection at an address that nobody armed is told from what the program protects. */
static void test_moved_registration(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {fill_two, move_and_grow, register_at_area};
	const struct dirty_vma shared = {area.start, area.end, DIRTY_VMA_SHARED, 0},
			       grown = {area.start + 4 * HUGE, area.end + 4 * HUGE, DIRTY_VMA_ANON, 0},
			       moved = {area.start + HUGE, area.end + HUGE, DIRTY_VMA_SHARED, 0},
			       rest = {grown.end, grown.end + PAGES * P, DIRTY_VMA_ANON, 0};
	struct target t;

	if (!(backend.ops->caps & DIRTY_CAP_SHOWS_UW))
		skip();
	begin(&t, steps);
	assert_int_equal(pass(&t, true, DIRTY_ROUND, &shared, NULL), 0);
	assert_int_equal(pass(&t, true, DIRTY_ROUND, &grown, NULL), 0);
	tell(&t, 1);
	assert_true(shows_uw(t.pid, &moved));
	assert_true(shows_uw(t.pid, &rest));
	assert_int_equal(backend.ops->owns(t.session, &moved), 1);
	assert_int_equal(backend.ops->owns(t.session, &rest), 1);
	tell(&t, 2);
	assert_true(shows_uw(t.pid, &area));
	assert_int_equal(backend.ops->owns(t.session, &area), 0);
	end(&t);
}

static void miss(void)
{
	map_at(AREA, PAGES * P, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	register_own(UFFDIO_REGISTER_MODE_MISSING);
}

/* As Ferry reads, a page that only the program's handler could bring is an error and no endless wait. */
static void test_missing_page(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {miss};
	struct target t;
	char page[P];

	begin(&t, steps);
	assert_int_equal(pread(t.mem, page, sizeof(page), (off_t)area.start), -1);
	assert_int_equal(errno, EIO);
	end(&t);
}

/* --- the descriptor ----------------------------------------------------------------------------------- */

/* Held by the target too, our death would leave it waiting in fork. */
static void test_no_descriptor_is_left(void **state)
{
	(void)state;
	static void (*const steps[])(void) = {fill};
	struct error e = ERROR_INIT;
	struct target t;
	int *fds;
	size_t n;

	begin(&t, steps);
	assert_int_equal(pass(&t, true, DIRTY_ROUND, &area, NULL), 0);
	assert_int_equal(proc_fds(t.pid, &fds, &n, &e), 0);
	for (size_t i = 0; i < n; i++) {
		char path[64], link[64] = "";

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", t.pid, fds[i]);
		if (readlink(path, link, sizeof(link) - 1) > 0)
			assert_null(strstr(link, "userfaultfd"));
	}
	free(fds);
	end(&t);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_untracked_in_the_middle), cmocka_unit_test(test_dropped_huge_page),
		cmocka_unit_test(test_empty_hugetlb),           cmocka_unit_test(test_guards_in_file_maps),
		cmocka_unit_test(test_own_userfaultfd),         cmocka_unit_test(test_missing_page),
		cmocka_unit_test(test_no_descriptor_is_left),   cmocka_unit_test(test_moved_registration),
	};
	char exe[PATH_MAX];
	struct error e = ERROR_INIT;
	struct backend_info *list;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	size_t n_list;
	int bad = 0;

	if (n < 0)
		return 1;
	exe[n] = 0;
	cleanup_free char *mine = xasprintf("%s/backends", dirname(dirname(exe)));

	dir = argc > 1 ? argv[1] : mine;
	map_file();
	guards = madvise(AREA + HUGE, P, MADV_GUARD_INSTALL) == 0;
	munmap(AREA, 2 * HUGE);
	if (backend_list(dir, &list, &n_list, &e) < 0) {
		fprintf(stderr, "skipped: %s\n", e.text);
		return 0;
	}
	for (size_t i = 0; i < n_list; i++) {
		if (list[i].usable != 0 || backend_open(list[i].name, dir, &backend, NULL, &e) != 0)
			continue;
		fprintf(stderr, "%s\n", list[i].name);
		bad += cmocka_run_group_tests(tests, NULL, NULL);
		backend_close(&backend);
	}
	free(list);
	return bad;
}
