/* SPDX-License-Identifier: Apache-2.0 */
/* Many small ranges in one call: the right bytes for each, and none claimed that was not read. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define P     PAGE_SIZE_BYTES
#define PAGES 1024

static char *mem;
static struct memory *m;
static struct memory_process mp;

/* Page i of the child holds i in each of its words; our own holds nothing. */
static int setup(void **state)
{
	(void)state;
	mem = mmap(NULL, PAGES * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(mem != MAP_FAILED);
	int ready[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	mp.pid = mp.living = fork();
	if (mp.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (uint32_t i = 0; i < PAGES * P / 4; i++)
			((uint32_t *)mem)[i] = i / (P / 4);
		if (mprotect(mem + 700 * P, P, PROT_NONE) == 0 && write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	mp.pidfd = sys_pidfd_open(mp.pid, 0);
	assert_true(mp.pidfd >= 0);
	m = memory_new();
	m->one_process = true;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kill(mp.pid, SIGKILL);
	waitpid(mp.pid, NULL, 0);
	close(mp.pidfd);
	memory_free(m);
	munmap(mem, PAGES * P);
	return 0;
}

static struct page_range pages(unsigned first, unsigned n)
{
	return (struct page_range){(uint64_t)mem + first * P, (uint64_t)mem + (first + n) * P};
}

/* How many of them were read, each checked. */
static size_t gathered(const struct page_range *r, size_t n)
{
	memset(m->buffer, 0xee, STREAM_MAX_RUN);
	size_t whole = memory_gather(m, &mp, r, n);
	const uint32_t *w = (const uint32_t *)m->buffer;

	assert_true(whole <= n);
	for (size_t i = 0; i < whole; i++)
		for (uint64_t at = r[i].start; at < r[i].end; at += 4)
			assert_int_equal(*w++, (at - (uint64_t)mem) / P);
	return whole;
}

static void test_scattered(void **state)
{
	(void)state;
	struct page_range r[300];
	size_t done = 0, n = 0;

	for (unsigned i = 0; i < 200; i++)
		r[n++] = pages(i * 3, i % 7 == 0 ? 2 : 1);
	while (n - done > 1) {
		size_t k = gathered(r + done, n - done);

		assert_true(k > 1);
		done += k;
	}
	assert_int_equal(gathered(r, 1), 0); /* one alone is no gain */
}

static void test_long(void **state)
{
	(void)state;
	struct page_range r[] = {pages(1, 1), pages(3, 16), pages(30, 17), pages(60, 1)};

	assert_int_equal(gathered(r, 4), 2);
	assert_int_equal(gathered(r + 2, 2), 0);
}

/* More than the buffer holds. */
static void test_full(void **state)
{
	(void)state;
	struct page_range r[64];

	for (unsigned i = 0; i < 40; i++)
		r[i] = pages(i * 17, 16);
	assert_int_equal(gathered(r, 40), STREAM_MAX_RUN / (16 * P));
}

static void test_unreadable(void **state)
{
	(void)state;
	struct page_range r[] = {pages(690, 1), pages(692, 2), pages(699, 3), pages(710, 1)};

	assert_int_equal(gathered(r, 4), 2);
	assert_int_equal(gathered(r + 2, 2), 0);
}

static void test_not_meant_for_it(void **state)
{
	(void)state;
	struct page_range r[] = {pages(1, 1), pages(3, 1)};

	assert_int_equal(gathered(r, 2), 2);
	m->one_process = false;
	assert_int_equal(gathered(r, 2), 0);
	m->one_process = true;
	mp.swapped = true;
	assert_int_equal(gathered(r, 2), 0);
	mp.swapped = false;
}

/* Whatever was read, by then the pid may have been somebody else's. */
static void test_ended(void **state)
{
	(void)state;
	struct page_range r[] = {pages(1, 1), pages(3, 1)};
	struct memory_process other = mp;
	pid_t ended = fork();

	if (ended == 0)
		_exit(0);
	mp.pidfd = sys_pidfd_open(ended, 0);
	assert_true(mp.pidfd >= 0);
	waitpid(ended, NULL, 0);
	assert_int_equal(gathered(r, 2), 0);
	close(mp.pidfd);
	mp = other;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scattered),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_not_meant_for_it),
		cmocka_unit_test(test_ended),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
