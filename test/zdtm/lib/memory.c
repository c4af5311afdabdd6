/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <sys/mman.h>

static void add_line(const char *line, const char *name, long *sum)
{
	size_t n = strlen(name);

	if (!strncmp(line, name, n) && line[n] == ':')
		*sum += strtol(line + n + 1, NULL, 10);
}

struct mem_use mem_use(const void *p, size_t size)
{
	static char text[4 << 20];
	struct mem_use u = {0};
	uintptr_t from = (uintptr_t)p, start, end;
	bool in = false;

	test_read_file("/proc/self/smaps", text, sizeof(text));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		if (*line < 'A' || *line > 'Z') {
			CHECK(sscanf(line, "%lx-%lx", &start, &end) == 2, "smaps: %s", line);
			in = start >= from && end <= from + size;
			continue;
		}
		if (!in)
			continue;
		add_line(line, "Rss", &u.rss);
		add_line(line, "Anonymous", &u.anon);
		add_line(line, "AnonHugePages", &u.anon_huge);
		add_line(line, "Swap", &u.swap);
		add_line(line, "Locked", &u.locked);
	}
	return u;
}

long mem_status(const char *name)
{
	static char text[8192];
	long n = -1;

	test_read_file("/proc/self/status", text, sizeof(text));
	for (char *line = strtok(text, "\n"); line && n < 0; line = strtok(NULL, "\n")) {
		long sum = 0;

		if (!strncmp(line, name, strlen(name))) {
			add_line(line, name, &sum);
			n = sum;
		}
	}
	CHECK(n >= 0, "no %s in /proc/self/status", name);
	return n;
}

void mem_check_near(long before, long after, int percent, long slack, const char *what)
{
	long room = before * percent / 100 + slack;

	errno = 0;
	CHECK(after >= before - room && after <= before + room, "%s is %ld KiB, was %ld KiB", what, after,
	      before);
}

char *mem_alone(size_t size)
{
	const size_t huge = 2UL << 20;
	char *p = test_map(size + 3 * huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
	char *at = p + 2 * huge - (uintptr_t)p % huge;

	return MUST(mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

void mem_rewrite(volatile uint64_t *mem, size_t pages)
{
	uint64_t lap = 0;

	while (test_waiting()) {
		for (size_t i = 0; i < pages; i++) {
			CHECK_EQ(mem[i * 512 + MEM_LAP_WORD], lap);
			mem[i * 512 + MEM_LAP_WORD] = lap + 1;
		}
		lap++;
	}
	for (size_t i = 0; i < pages; i++)
		CHECK_EQ(mem[i * 512 + MEM_LAP_WORD], lap);
}
