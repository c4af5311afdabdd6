/* SPDX-License-Identifier: Apache-2.0 */
/* mlockall(MCL_FUTURE): maps made after the restore are locked too. */
#include <sys/mman.h>

#include "zdtm.h"

static long locked_kib(void)
{
	char buf[4096], *p;

	test_read_file("/proc/self/status", buf, sizeof(buf));
	p = strstr(buf, "VmLck:");
	CHECK(p, "no VmLck");
	return strtol(p + 6, NULL, 10);
}

int main(int argc, char **argv)
{
	long before, after;
	char *p;

	test_init(argc, argv);
	MUST(mlockall(MCL_CURRENT | MCL_FUTURE));
	p = test_map(64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	p[0] = 1;
	before = locked_kib();
	test_ready();
	test_wait();
	CHECK_EQ(locked_kib(), before);
	p = test_map(64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	after = locked_kib();
	CHECK(after >= before + 256, "a new map is not locked: %ld KiB, before %ld KiB", after, before);
	test_pass();
}
