/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that gives itself its pages: some are there, one is of zeros, the others are missing. Two threads
 * wait for pages when it is frozen: of one the event was read, of the other not.
 */
#include <pthread.h>

#include "uffd.h"

#define PAGES 64

static char *mem;
static int uffd;
static volatile int value[2];

static void *toucher(void *arg)
{
	long i = (long)arg;

	value[i] = mem[(40 + i) * PAGE];
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[2];
	uint64_t features;
	char text[64], *locked;
	int fd, flags;

	test_init(argc, argv);
	uffd = uffd_new(O_NONBLOCK, UFFD_FEATURE_THREAD_ID);
	features = uffd_features(uffd);
	flags = MUST(fcntl(uffd, F_GETFL));
	mem = test_map(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	uffd_register(uffd, mem, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	for (int i = 0; i < 10; i++)
		uffd_copy(uffd, mem + i * PAGE, i);
	uffd_zero(uffd, mem + 20 * PAGE);
	uffd_copy(uffd, mem + 21 * PAGE, 21);
	memset(mem + 21 * PAGE, 0, PAGE);
	locked = test_map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	MUST(mlock(locked, 8 * PAGE));
	test_fill(locked, 8 * PAGE, 5);
	if (madvise(locked + 2 * PAGE, 2 * PAGE, 24 /* MADV_DONTNEED_LOCKED */))
		locked = NULL;
	else
		uffd_register(uffd, locked, 8, UFFDIO_REGISTER_MODE_MISSING);
	MUST0(pthread_create(&t[0], NULL, toucher, (void *)0));
	uffd_expect(uffd, mem + 40 * PAGE, 0);
	MUST0(pthread_create(&t[1], NULL, toucher, (void *)1));
	struct pollfd pfd = {.fd = uffd, .events = POLLIN};
	CHECK_EQ(poll(&pfd, 1, 20000), 1);
	test_ready();
	test_wait();
	CHECK_EQ(fcntl(uffd, F_GETFL), flags);
	CHECK_EQ(uffd_features(uffd), features);
	for (int i = 0; i < 10; i++)
		test_check_fill(mem + i * PAGE, PAGE, i, "a page that was there");
	CHECK(page_is_there(mem + 20 * PAGE), "the zero page is missing");
	CHECK(page_is_there(mem + 21 * PAGE), "the page of zeros is missing");
	CHECK_EQ(mem[20 * PAGE], 0);
	CHECK_EQ(mem[21 * PAGE + 5], 0);
	for (int i = 0; i < PAGES; i++)
		if ((i >= 10 && i < 20) || i > 21)
			CHECK(!page_is_there(mem + i * PAGE), "page %d should be missing", i);
	for (int i = 0; locked && i < 8; i++)
		CHECK(page_is_there(locked + i * PAGE) == (i != 2 && i != 3), "locked page %d", i);
	if (locked)
		test_check_fill(locked, 2 * PAGE, 5, "locked memory");
	/* One answer is owed since before, the other event is still to be read; either may come again. */
	for (int left = 1; left || poll(&pfd, 1, 0) == 1;) {
		struct uffd_msg msg;

		errno = 0;
		CHECK(poll(&pfd, 1, 20000) == 1, "no event for the fault that was waiting");
		CHECK_EQ(read(uffd, &msg, sizeof(msg)), sizeof(msg));
		int page = (msg.arg.pagefault.address - (uintptr_t)mem) / PAGE;
		CHECK(page == 40 || page == 41, "an event for page %d", page);
		if (page == 41)
			left = 0;
	}
	uffd_copy(uffd, mem + 40 * PAGE, 40);
	uffd_copy(uffd, mem + 41 * PAGE, 41);
	MUST0(pthread_join(t[0], NULL));
	MUST0(pthread_join(t[1], NULL));
	for (int i = 0; i < 2; i++) {
		test_fill(text, sizeof(text), 40 + i);
		CHECK_EQ(value[i], text[0]);
	}
	/* It is still registered. */
	fd = uffd_new(O_NONBLOCK, 0);
	CHECK(uffd_try_register(fd, mem, PAGES, UFFDIO_REGISTER_MODE_MISSING) && errno == EBUSY,
	      "the memory is not registered any more");
	test_pass();
}
