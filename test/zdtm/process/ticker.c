/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes, each of which appends the number of each of its steps to a file.  A copy that ran beside
 * them, for however short a time, or one that went on from an older state, would leave its steps there.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "zdtm.h"

#define PAGES (8 << 8) /* 8 MiB */
#define LINE  9

static uint64_t *page(char *mem, uint64_t n)
{
	return (uint64_t *)(mem + n * 7919 % PAGES * 4096);
}

static int step(int fd, char *mem, uint64_t n)
{
	char line[16];

	if (n > PAGES)
		CHECK_EQ(*page(mem, n), n - PAGES);
	*page(mem, n) = n;
	snprintf(line, sizeof(line), "%08llu\n", (unsigned long long)n);
	CHECK_EQ(write(fd, line, LINE), LINE);
	return 0;
}

static void check(const char *name, uint64_t n)
{
	int fd = MUST(open(test_path(name), O_RDONLY));
	char line[LINE + 1] = "";
	struct stat st;

	MUST(fstat(fd, &st));
	for (uint64_t i = 1; i <= n; i++) {
		CHECK_EQ(read(fd, line, LINE), LINE);
		CHECK(strtoull(line, NULL, 10) == i, "step %llu of %s is followed by step %.8s",
		      (unsigned long long)i - 1, name, line);
	}
	CHECK_EQ(st.st_size, (long long)(n * LINE));
	close(fd);
}

static void tick(const char *name)
{
	int fd = MUST(open(test_path(name), O_WRONLY | O_CREAT | O_APPEND, 0644));
	char *mem = test_map(PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	uint64_t n = 0;

	memset(mem, 0x5a, PAGES * 4096L);
	if (!strcmp(name, "ticks.parent"))
		test_ready();
	while (test_waiting()) {
		step(fd, mem, ++n);
		test_sleep_ms(2);
	}
	check(name, n);
}

int main(int argc, char **argv)
{
	pid_t child;

	test_init(argc, argv);
	child = test_fork();
	if (!child) {
		tick("ticks.child");
		_exit(7);
	}
	tick("ticks.parent");
	test_reap(child, 7);
	test_pass();
}
