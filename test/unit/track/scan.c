/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scan the backends share: each range is told once and in ascending order, also when it takes many calls
 * and the memory is written again while they are made.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* The files of plugins are in no library. First: cmocka has a macro named fail. */
#include "../../../plugins/dirty-backends/common/parallel.c"
#include "../../../plugins/dirty-backends/common/ranges.c"
#include "../../../plugins/dirty-backends/common/scan.c"
#include "../../../plugins/dirty-backends/common/zeros.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define PAGES 20000ul

static char *memory;
static int pagemap;

/* Memory of which every second page was written since it was protected, or skip. */
static int track(void)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	struct uffdio_api api = {.api = UFFD_API,
				 .features = 1 << 15 | 1 << 13}; /* WP_ASYNC, WP_UNPOPULATED */

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
		skip();
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(memory != MAP_FAILED);
	madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE);
	memset(memory, 1, PAGES * PAGE);
	struct uffdio_register reg = {{(uintptr_t)memory, PAGES * PAGE}, UFFDIO_REGISTER_MODE_WP, 0};

	assert_int_equal(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	assert_true(pagemap >= 0);
	return uffd;
}

struct seen {
	uint64_t last;
	unsigned long told, out_of_order;
	bool write;
};

static int each(void *ctx, const struct region *r)
{
	struct seen *s = ctx;

	s->out_of_order += r->start < s->last;
	s->last = r->end;
	s->told += (r->end - r->start) / PAGE;
	/* Written again at once: a second look at the same place would tell it again. */
	if (s->write)
		*(volatile char *)r->start = 3;
	return 0;
}

static void test_order(void **state)
{
	(void)state;
	int uffd = track();
	const struct scan arm = {.start = (uintptr_t)memory,
				 .end = (uintptr_t)memory + PAGES * PAGE,
				 .flags = SCAN_ARM | SCAN_CHECK,
				 .mask = CAT_WRITTEN,
				 .anyof = CAT_POPULATED,
				 .ret = CAT_WRITTEN};
	struct seen first = {0}, s = {.write = true}, again = {0};

	assert_int_equal(pages_scan(pagemap, &arm, each, &first), 0);
	assert_int_equal(first.told, PAGES);
	for (size_t i = 0; i < PAGES; i += 2)
		memory[i * PAGE] = 2;
	assert_int_equal(pages_scan(pagemap, &arm, each, &s), 0);
	assert_int_equal(s.out_of_order, 0);
	assert_int_equal(s.told, PAGES / 2);
	/* What was written meanwhile is told by the next one. */
	assert_int_equal(pages_scan(pagemap, &arm, each, &again), 0);
	assert_int_equal(again.told, PAGES / 2);
	close(pagemap);
	close(uffd);
	munmap(memory, PAGES * PAGE);
}

struct list {
	struct region v[PAGES];
	size_t n, stop;
};

static int note(void *ctx, const struct region *r)
{
	struct list *l = ctx;
	struct region *last = l->n ? &l->v[l->n - 1] : NULL;

	if (l->stop && l->n == l->stop)
		return 7;
	/* A run that goes over the border of two parts comes in two pieces. */
	if (last && last->end == r->start && last->categories == r->categories)
		last->end = r->end;
	else
		l->v[l->n++] = *r;
	return 0;
}

/* Many threads find what one finds, in the same order. */
static void test_parts(void **state)
{
	(void)state;
	static struct list one, many;
	int uffd = track();
	struct scan s = {.start = (uintptr_t)memory,
			 .end = (uintptr_t)memory + PAGES * PAGE,
			 .flags = SCAN_CHECK,
			 .mask = CAT_WRITTEN,
			 .anyof = CAT_POPULATED,
			 .ret = CAT_WRITTEN};
	struct scan arm = s;

	arm.flags |= SCAN_ARM;
	assert_int_equal(pages_scan(pagemap, &arm, note, &one), 0);
	for (size_t i = 0; i < PAGES; i += 1 + i % 7)
		memory[i * PAGE] = 2;
	memset(memory + 500 * PAGE, 3, 1000 * PAGE); /* also over borders */
	memset(memory + PAGES / 2 * PAGE - HUGE, 3, 2 * HUGE);
	s.start += 3 * PAGE;
	s.end -= 5 * PAGE;
	one.n = 0;
	assert_int_equal(pages_scan(pagemap, &s, note, &one), 0);
	assert_true(one.n > 1000);
	for (unsigned parts = 0; parts < 40; parts++) {
		many.n = many.stop = 0;
		assert_int_equal(pages_scan_split(pagemap, &s, parts, note, &many), 0);
		assert_int_equal(many.n, one.n);
		assert_memory_equal(many.v, one.v, one.n * sizeof(one.v[0]));
		many.n = 0;
		many.stop = 100; /* what it says ends it */
		assert_int_equal(pages_scan_split(pagemap, &s, parts, note, &many), 7);
	}
	assert_true(pages_scan_split(uffd, &s, 4, note, &many) < 0);
	s.end = s.start;
	many.n = 0;
	assert_int_equal(pages_scan_split(pagemap, &s, 4, note, &many), 0);
	assert_int_equal(many.n, 0);
	assert_int_equal(pages_scan_parts(1 << 20), 1);
	close(pagemap);
	close(uffd);
	munmap(memory, PAGES * PAGE);
}

static atomic_bool stop_writing;

static void *write_on(void *arg)
{
	uint32_t x = 1;

	(void)arg;
	while (!atomic_load(&stop_writing)) {
		x = x * 1664525 + 1013904223;
		++*(volatile uint64_t *)(memory + (x >> 8) % PAGES * PAGE);
	}
	return NULL;
}

static int copy(void *ctx, const struct region *r)
{
	memcpy((char *)ctx + (r->start - (uintptr_t)memory), (char *)r->start, r->end - r->start);
	return 0;
}

/* Rounds by many threads, while it is written: what is told, each time, is all that changes. */
static void test_rounds_in_parts(void **state)
{
	(void)state;
	int uffd = track();
	const struct scan arm = {.start = (uintptr_t)memory,
				 .end = (uintptr_t)memory + PAGES * PAGE,
				 .flags = SCAN_ARM | SCAN_CHECK,
				 .mask = CAT_WRITTEN,
				 .anyof = CAT_POPULATED,
				 .ret = CAT_WRITTEN};
	char *shadow = malloc(PAGES * PAGE);
	pthread_t writer;

	atomic_store(&stop_writing, false);
	assert_int_equal(pthread_create(&writer, NULL, write_on, NULL), 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(pages_scan_split(pagemap, &arm, 2 + i % 6, copy, shadow), 0);
	atomic_store(&stop_writing, true);
	pthread_join(writer, NULL);
	assert_int_equal(pages_scan_split(pagemap, &arm, 3, copy, shadow), 0);
	assert_memory_equal(shadow, memory, PAGES * PAGE);
	free(shadow);
	close(pagemap);
	close(uffd);
	munmap(memory, PAGES * PAGE);
}

static void test_ranges_do_not_swallow(void **state)
{
	(void)state;
	struct ranges r = {0};

	assert_int_equal(ranges_add(&r, 5 * PAGE, 6 * PAGE, DIRTY_WRITTEN), 0);
	assert_int_equal(ranges_add(&r, 6 * PAGE, 7 * PAGE, DIRTY_WRITTEN), 0);
	assert_int_equal(r.n, 1);
	assert_int_equal(ranges_add(&r, 9 * PAGE, 10 * PAGE, DIRTY_WRITTEN), 0);
	assert_int_equal(ranges_add(&r, 2 * PAGE, 3 * PAGE, DIRTY_WRITTEN), -ERANGE);
	assert_int_equal(r.n, 2);
	ranges_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_rounds_in_parts),
		cmocka_unit_test(test_ranges_do_not_swallow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
