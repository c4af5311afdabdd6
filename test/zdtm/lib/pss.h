/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How much memory processes use together: anonymous pages, each counted once however many share it. */
#include "zdtm.h"

static inline uint64_t rollup(pid_t pid, const char *field)
{
	char path[64], buf[4096], *at;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	test_read_file(path, buf, sizeof(buf));
	at = strstr(buf, field);
	CHECK(at, "%s has no %s", path, field);
	return strtoull(at + strlen(field), NULL, 10) * 1024;
}

static inline uint64_t pss_of(const pid_t *pids, int n)
{
	uint64_t sum = rollup(getpid(), "Pss_Anon:");

	for (int i = 0; i < n; i++)
		sum += rollup(pids[i], "Pss_Anon:");
	return sum;
}

static inline void check_pss(uint64_t before, uint64_t after)
{
	errno = 0;
	CHECK(after * 100 <= before * 103 && after * 103 >= before * 100,
	      "the processes use %llu KiB together, it was %llu KiB", (unsigned long long)after / 1024,
	      (unsigned long long)before / 1024);
}
