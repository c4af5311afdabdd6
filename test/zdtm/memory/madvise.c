/* SPDX-License-Identifier: Apache-2.0 */
/* Advice and locks, as the flags of each mapping in smaps. */
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 8
#define COUNT 12

static const int advice[COUNT] = {MADV_NORMAL,
				  MADV_RANDOM,
				  MADV_SEQUENTIAL,
				  MADV_DONTFORK,
				  MADV_DONTDUMP,
				  MADV_WIPEONFORK,
				  MADV_HUGEPAGE,
				  MADV_NOHUGEPAGE,
				  MADV_MERGEABLE,
				  -1,
				  -2,
				  -3};

static void read_flags(char *addr[], char flags[][128])
{
	static char smaps[1 << 20];
	char head[32], *p;

	test_read_file("/proc/self/smaps", smaps, sizeof(smaps));
	for (int i = 0; i < COUNT; i++) {
		snprintf(head, sizeof(head), "%lx-", (unsigned long)addr[i]);
		p = strstr(smaps, head);
		CHECK(p, "no mapping at %s", head);
		p = strstr(p, "VmFlags:");
		CHECK(p, "no flags for the mapping at %s", head);
		snprintf(flags[i], 128, "%.*s", (int)strcspn(p, "\n"), p);
	}
}

int main(int argc, char **argv)
{
	static char before[COUNT][128], after[COUNT][128];
	char *addr[COUNT];

	test_init(argc, argv);
	for (int i = 0; i < COUNT; i++) {
		/* A hole behind each, so that none is merged with the next. */
		addr[i] = test_map((PAGES + 1) * 4096, PROT_READ | PROT_WRITE,
				   MAP_ANONYMOUS | (advice[i] == MADV_RANDOM ? MAP_SHARED : MAP_PRIVATE));
		MUST(munmap(addr[i] + PAGES * 4096, 4096));
		addr[i][0] = (char)i;
		if (advice[i] >= 0 && madvise(addr[i], PAGES * 4096, advice[i]) && errno != EINVAL)
			test_fail("madvise %d", advice[i]);
		if (advice[i] == -1)
			MUST(mlock(addr[i], PAGES * 4096));
		if (advice[i] == -2)
			MUST(mlock2(addr[i], PAGES * 4096, MLOCK_ONFAULT));
	}
	read_flags(addr, before);
	test_ready();
	test_wait();
	read_flags(addr, after);
	for (int i = 0; i < COUNT; i++) {
		CHECK(!strcmp(before[i], after[i]), "mapping %d (advice %d) has %s, had %s", i, advice[i],
		      after[i], before[i]);
		CHECK_EQ(addr[i][0], i);
	}
	test_pass();
}
