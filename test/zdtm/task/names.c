/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc shows of a process: comm, exe, cmdline, environ, auxv. The command line has been overwritten, as
 * daemons do. */
#include <sys/auxv.h>
#include <sys/prctl.h>

#include "zdtm.h"

static const char *const names[] = {"comm", "cmdline", "environ", "auxv"};

static size_t read_one(int i, char *buf, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/%s", names[i]);
	return test_read_file(path, buf, size);
}

int main(int argc, char **argv)
{
	static char before[4][8192], after[8192], exe[4096], exe_after[4096];
	size_t len[4];
	ssize_t n;

	test_init(argc, argv);
	memset(argv[0], 'x', strlen(argv[0]));
	memcpy(argv[0], "daemon: idle", strlen(argv[0]) < 12 ? strlen(argv[0]) : 12);
	MUST(prctl(PR_SET_NAME, "a (strange) x"));
	for (int i = 0; i < 4; i++)
		len[i] = read_one(i, before[i], sizeof(before[i]));
	MUST(readlink("/proc/self/exe", exe, sizeof(exe) - 1));
	test_ready();
	test_wait();
	for (int i = 0; i < 4; i++) {
		size_t now = read_one(i, after, sizeof(after));

		CHECK(now == len[i] && !memcmp(after, before[i], now),
		      "/proc/self/%s differs: %zu bytes, was %zu", names[i], now, len[i]);
	}
	n = MUST(readlink("/proc/self/exe", exe_after, sizeof(exe_after) - 1));
	CHECK(n > 0 && !strcmp(exe, exe_after), "exe is %s, was %s", exe_after, exe);
	CHECK_EQ(getauxval(AT_PAGESZ), sysconf(_SC_PAGESIZE));
	test_pass();
}
