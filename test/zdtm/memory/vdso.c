/* SPDX-License-Identifier: Apache-2.0 */
/* The vdso is where it was, whole, and tells the time; no clock goes backwards. */
#include <elf.h>
#include <sys/auxv.h>
#include <time.h>

#include "zdtm.h"

static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW,
				   CLOCK_MONOTONIC_COARSE};

static void find(char *line, size_t size)
{
	static char maps[1 << 16];
	char *p;

	test_read_file("/proc/self/maps", maps, sizeof(maps));
	p = strstr(maps, "[vdso]");
	CHECK(p, "no vdso");
	while (p > maps && p[-1] != '\n')
		p--;
	snprintf(line, size, "%.*s", (int)strcspn(p, " "), p);
}

int main(int argc, char **argv)
{
	struct timespec before[5], after, direct;
	char at[2][64];

	test_init(argc, argv);
	find(at[0], sizeof(at[0]));
	for (int i = 0; i < 5; i++)
		MUST(clock_gettime(clocks[i], &before[i]));
	test_ready();
	while (test_waiting())
		for (int i = 0; i < 1000; i++)
			MUST(clock_gettime(CLOCK_MONOTONIC, &after));
	find(at[1], sizeof(at[1]));
	CHECK(!strcmp(at[0], at[1]), "the vdso moved from %s to %s", at[0], at[1]);
	CHECK(!memcmp((void *)getauxval(AT_SYSINFO_EHDR), ELFMAG, SELFMAG),
	      "no ELF header where auxv says the vdso is");
	for (int i = 0; i < 5; i++) {
		MUST(clock_gettime(clocks[i], &after));
		CHECK(after.tv_sec - before[i].tv_sec >= 0 && after.tv_sec - before[i].tv_sec < 3600,
		      "clock %d went from %ld to %ld", clocks[i], (long)before[i].tv_sec, (long)after.tv_sec);
	}
	MUST(clock_gettime(CLOCK_REALTIME, &after));
	direct.tv_sec = time(NULL);
	CHECK(direct.tv_sec - after.tv_sec <= 1 && after.tv_sec - direct.tv_sec <= 1,
	      "time() and clock_gettime() disagree");
	test_pass();
}
