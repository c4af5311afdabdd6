/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory that does not hold still.  Three processes write pages of their own in memory that all of
 * them map, and look at the pages of the others: nothing may be older than what was seen before.  They give
 * back page tables (MADV_DONTNEED, which keeps content), move their mappings and map them twice, and fork
 * children that write, too.  In other shared memory pages are taken away (MADV_REMOVE) and must not come
 * back; and one has a descriptor, by which it is read and written.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "zdtm.h"

#define PROCS  3
#define PAGES  1536UL /* of each of the common ones */
#define TAKEN  768UL
#define FILED  128UL
#define COMMON 2 /* anonymous; a memfd that is closed */

static uint64_t *common[COMMON], *taken, *filed;
static uint64_t seen[COMMON][PAGES], taken_version[TAKEN], filed_version[FILED];
static int me, file, moves;

static uint64_t sum(uint64_t id, uint64_t v)
{
	return (id << 32 | 7) * v;
}

static void put(uint64_t *page, uint64_t id, uint64_t v)
{
	__atomic_store_n(&page[0], v, __ATOMIC_SEQ_CST);
	__atomic_store_n(&page[300], sum(id, v), __ATOMIC_SEQ_CST);
	__atomic_store_n(&page[511], v, __ATOMIC_SEQ_CST);
}

/* The version of a page that somebody may be writing. */
static uint64_t get(const uint64_t *page, uint64_t id)
{
	for (;;) {
		uint64_t last = __atomic_load_n(&page[511], __ATOMIC_SEQ_CST);
		uint64_t mid = __atomic_load_n(&page[300], __ATOMIC_SEQ_CST);
		uint64_t first = __atomic_load_n(&page[0], __ATOMIC_SEQ_CST);

		if (first == last && mid == sum(id, last))
			return last;
		uint64_t mid_v = mid / sum(id, 1);

		/* Several may have been written in between. */
		if (mid % sum(id, 1) || mid_v < last || mid_v > first)
			test_fail("page %llu at %p holds versions %llu and %llu", (unsigned long long)id,
				  (const void *)page, (unsigned long long)first, (unsigned long long)last);
	}
}

static uint64_t look(int k, size_t i, const uint64_t *mem)
{
	uint64_t v = get(mem + i * 512, i), old = seen[k][i];

	errno = 0;
	if (v < old || ((int)(i % PROCS) == me && v != old))
		test_fail("process %d: page %zu of common memory %d at %p is of version %llu, was %llu", me,
			  i, k, (const void *)(mem + i * 512), (unsigned long long)v,
			  (unsigned long long)old);
	seen[k][i] = v;
	return v;
}

static void write_own(int k, size_t i)
{
	i -= i % PROCS;
	i += (size_t)me;
	if (i < PAGES)
		put(common[k] + i * 512, i, ++seen[k][i]);
}

static void touch(uint64_t *seed, int n)
{
	while (n--) {
		int k = (int)(test_random(seed) % COMMON);
		size_t i = test_random(seed) % PAGES;

		look(k, i, common[k]);
		if (n % 2)
			write_own(k, i);
	}
}

static void move(uint64_t *seed)
{
	int k = (int)(test_random(seed) % COMMON);
	uint64_t *to =
		MUST(mmap(NULL, PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

	common[k] = MUST(mremap(common[k], PAGES * 4096, PAGES * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	moves++;
}

/* Part of it first, which then grows. */
static void map_twice(uint64_t *seed)
{
	int k = (int)(test_random(seed) % COMMON);
	uint64_t *also = MUST(mremap(common[k], 0, PAGES * 2048, MREMAP_MAYMOVE));

	for (int n = 0; n < 8; n++)
		look(k, test_random(seed) % (PAGES / 2), also);
	also = MUST(mremap(also, PAGES * 2048, PAGES * 4096, MREMAP_MAYMOVE));
	for (int n = 0; n < 8; n++)
		look(k, test_random(seed) % PAGES, also);
	MUST(munmap(also, PAGES * 4096));
}

static void fork_one(uint64_t *seed)
{
	size_t i = test_random(seed) % (PAGES - PROCS);
	pid_t pid = test_fork();

	if (!pid) {
		for (int n = 0; n < 20; n++)
			look(n % COMMON, test_random(seed) % PAGES, common[n % COMMON]);
		write_own(0, i);
		write_own(1, i);
		_exit(0);
	}
	test_reap(pid, 0);
	i += (size_t)me - i % PROCS;
	seen[0][i]++;
	seen[1][i]++;
}

/* Ours are those that leave our number as rest. */
static void take_away(uint64_t *seed)
{
	size_t i = test_random(seed) % TAKEN / PROCS * PROCS + (size_t)me;
	uint64_t *page = taken + i * 512;

	/* Also without having looked at it. */
	bool remove = test_random(seed) % 2, see = !remove || test_random(seed) % 4 == 0;

	CHECK(!see || get(page, i) == taken_version[i],
	      "process %d: page %zu of what is taken away is of version %llu, not %llu", me, i,
	      (unsigned long long)page[0], (unsigned long long)taken_version[i]);
	if (!remove) {
		put(page, i, ++taken_version[i]);
		return;
	}
	MUST(madvise(page, 4096, MADV_REMOVE));
	taken_version[i] = 0;
	if (test_random(seed) % 2)
		put(page, i, ++taken_version[i]);
}

static void by_descriptor(uint64_t *seed)
{
	size_t i = test_random(seed) % FILED;
	uint64_t page[512] = {0};

	if (me)
		return;
	CHECK_EQ(pread(file, page, 4096, (off_t)(i * 4096)), 4096);
	CHECK_EQ(get(page, i), filed_version[i]);
	CHECK_EQ(get(filed + i * 512, i), filed_version[i]);
	put(page, i, ++filed_version[i]);
	if (i % 2)
		CHECK_EQ(pwrite(file, page, 4096, (off_t)(i * 4096)), 4096);
	else
		put(filed + i * 512, i, filed_version[i]);
}

static void run(void)
{
	uint64_t seed = 77 + (uint64_t)me;
	unsigned lap = 0;

	for (; test_waiting(); lap++) {
		touch(&seed, 60);
		for (int n = 0; n < 10; n++)
			take_away(&seed);
		by_descriptor(&seed);
		if (lap % 3 == 0)
			MUST(madvise(common[lap % COMMON] + test_random(&seed) % (PAGES - 64) * 512,
				     64 * 4096, MADV_DONTNEED));
		if (lap % 16 == 5)
			map_twice(&seed);
		if (lap % 16 == 11)
			move(&seed);
		if (lap % 32 == 21)
			fork_one(&seed);
		if (lap % 8 == 7)
			test_sleep_ms(1);
	}
	for (int k = 0; k < COMMON; k++)
		for (size_t i = 0; i < PAGES; i++)
			look(k, i, common[k]);
	for (size_t i = (size_t)me; i < TAKEN; i += PROCS)
		CHECK_EQ(get(taken + i * 512, i), taken_version[i]);
	for (size_t i = 0; i < FILED && !me; i++)
		CHECK_EQ(get(filed + i * 512, i), filed_version[i]);
	CHECK(lap, "process %d did nothing", me);
}

static uint64_t *file_memory(size_t pages, int *ret_fd)
{
	*ret_fd = MUST(memfd_create("restless", MFD_CLOEXEC));
	MUST(ftruncate(*ret_fd, (off_t)(pages * 4096)));
	return MUST(mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, *ret_fd, 0));
}

int main(int argc, char **argv)
{
	pid_t child[PROCS];
	int fd;

	test_init(argc, argv);
	common[0] = test_map(PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	common[1] = file_memory(PAGES, &fd);
	MUST(close(fd));
	taken = test_map(TAKEN * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	filed = file_memory(FILED, &file);
	for (int k = 0; k < COMMON; k++)
		for (size_t i = 0; i < PAGES; i++)
			put(common[k] + i * 512, i, seen[k][i] = 1);
	for (size_t i = 0; i < TAKEN; i++)
		put(taken + i * 512, i, taken_version[i] = 1);
	for (me = 1; me < PROCS; me++) {
		child[me] = test_fork();
		if (!child[me]) {
			close(file);
			run();
			_exit(0);
		}
	}
	me = 0;
	test_ready();
	run();
	for (int i = 1; i < PROCS; i++)
		test_reap(child[i], 0);
	test_pass();
}
