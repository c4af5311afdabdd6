/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is mostly not there: what was never touched stays so, pages of zeros that were only read cost
 * nothing, and page tables do not grow.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "memory.h"

#define GIB   (1UL << 30)
#define FULL  (32UL << 20)
#define STEP  (37UL << 20)
#define READS (64UL << 20)

static char *sparse(int flags, int fd)
{
	char *p = MUST(mmap(NULL, 8 * GIB, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0));

	MUST(madvise(p, 8 * GIB, MADV_NOHUGEPAGE));
	for (uint64_t i = 0; i < 8 * GIB; i += STEP)
		test_fill(p + i / 4096 * 4096, 4096, i);
	return p;
}

static void check_sparse(const char *p)
{
	for (uint64_t i = 0; i < 8 * GIB; i += STEP)
		test_check_fill(p + i / 4096 * 4096, 4096, i, "sparse memory");
}

struct numbers {
	long rss, pte, anon, shmem;
};

static struct numbers measure(void)
{
	return (struct numbers){mem_status("VmRSS"), mem_status("VmPTE"), mem_status("RssAnon"),
				mem_status("RssShmem")};
}

int main(int argc, char **argv)
{
	struct numbers before, after;
	char *anon, *shared, *memfd, *full, *reads;
	int fd;
	long sum = 0;

	test_init(argc, argv);
	anon = sparse(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	shared = sparse(MAP_SHARED | MAP_ANONYMOUS, -1);
	fd = MUST(memfd_create("sparse", 0));
	MUST(ftruncate(fd, 8 * GIB));
	memfd = sparse(MAP_PRIVATE, fd);
	full = mem_alone(FULL);
	MUST(madvise(full, FULL, MADV_NOHUGEPAGE));
	test_fill(full, FULL, 1);
	reads = mem_alone(READS);
	MUST(madvise(reads, READS, MADV_NOHUGEPAGE));
	for (size_t i = 0; i < READS; i += 4096)
		sum += reads[i];
	CHECK_EQ(sum, 0);
	measure();
	before = measure();
	CHECK(before.rss < 4 * (long)(FULL >> 10), "VmRSS is %ld KiB already", before.rss);
	test_ready();
	test_wait();
	after = measure();
	mem_check_near(before.anon, after.anon, 1, 0, "RssAnon");
	/* Pages of programs and libraries come back when they are used. */
	CHECK(after.rss <= before.rss + before.rss / 100, "VmRSS is %ld KiB, was %ld", after.rss, before.rss);
	CHECK(after.pte <= before.pte + before.pte / 50 + 64, "VmPTE is %ld KiB, was %ld", after.pte,
	      before.pte);
	CHECK_EQ(mem_use(reads, READS).rss, 0);
	check_sparse(anon);
	check_sparse(shared);
	check_sparse(memfd);
	test_check_fill(full, FULL, 1, "full memory");
	for (size_t i = 0; i < READS; i += 4096)
		CHECK_EQ(reads[i], 0);
	test_pass();
}
