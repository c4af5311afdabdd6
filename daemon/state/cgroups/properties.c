/* SPDX-License-Identifier: Apache-2.0 */
/* What of a control group is worth keeping. Left out is what names devices of a machine, and what a group
 * without processes cannot have. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"

#define UNLIMITED "9223372036854771712" /* version 1: rounded down to pages, huge ones too */

const struct cgroup_property cgroup_properties[] = {
	{"cgroup.max.depth", "max", .v2 = true},
	{"cgroup.max.descendants", "max", .v2 = true},
	{"cpuset.cpus", "", .v2 = true, .list = true},
	{"cpuset.mems", "", .v2 = true, .list = true},
	{"cpu.max", "max 100000", .v2 = true},
	{"cpu.max.burst", "0", .v2 = true},
	{"cpu.weight", "100", .v2 = true},
	{"cpu.idle", "0", .v2 = true},
	{"cpu.uclamp.min", "0.00", .v2 = true},
	{"cpu.uclamp.max", "max", .v2 = true},
	{"memory.min", "0", .v2 = true},
	{"memory.low", "0", .v2 = true},
	{"memory.high", "max", .v2 = true},
	{"memory.max", "max", .v2 = true},
	{"memory.swap.high", "max", .v2 = true},
	{"memory.swap.max", "max", .v2 = true},
	{"memory.zswap.max", "max", .v2 = true},
	{"memory.oom.group", "0", .v2 = true},
	{"io.weight", "default 100", .v2 = true},
	{"pids.max", "max", .v2 = true},
	{"hugetlb.2MB.max", "max", .v2 = true},
	{"hugetlb.2MB.rsvd.max", "max", .v2 = true},
	{"hugetlb.1GB.max", "max", .v2 = true},
	{"hugetlb.1GB.rsvd.max", "max", .v2 = true},

	{"cgroup.clone_children", "0", .v2 = false},
	{"cpuset.cpus", NULL, .v2 = false, .early = true, .list = true},
	{"cpuset.mems", NULL, .v2 = false, .early = true, .list = true},
	{"cpuset.memory_migrate", "0", .v2 = false},
	{"cpuset.sched_load_balance", "1", .v2 = false},
	{"cpu.rt_period_us", "1000000", .v2 = false, .early = true},
	{"cpu.rt_runtime_us", "0", .v2 = false, .early = true},
	{"cpu.cfs_period_us", "100000", .v2 = false},
	{"cpu.cfs_quota_us", "-1", .v2 = false},
	{"cpu.cfs_burst_us", "0", .v2 = false},
	{"cpu.shares", "1024", .v2 = false},
	{"cpu.idle", "0", .v2 = false},
	{"memory.limit_in_bytes", UNLIMITED, .v2 = false},
	{"memory.memsw.limit_in_bytes", UNLIMITED, .v2 = false},
	{"memory.soft_limit_in_bytes", UNLIMITED, .v2 = false},
	{"memory.swappiness", NULL, .v2 = false},
	{"blkio.bfq.weight", "100", .v2 = false},
	{"net_cls.classid", "0", .v2 = false},
	{"pids.max", "max", .v2 = false},
	{"hugetlb.2MB.limit_in_bytes", UNLIMITED, .v2 = false},
	{"hugetlb.1GB.limit_in_bytes", UNLIMITED, .v2 = false},
};
const size_t cgroup_n_properties = ARRAY_SIZE(cgroup_properties);

const struct cgroup_property *cgroup_property_find(const char *name, bool v2)
{
	for (size_t i = 0; i < cgroup_n_properties; i++)
		if (cgroup_properties[i].v2 == v2 && !strcmp(cgroup_properties[i].name, name))
			return &cgroup_properties[i];
	return NULL;
}

bool cgroup_property_is_default(const struct cgroup_property *p, const char *value)
{
	if (!p->otherwise)
		return false;
	if (!strcmp(p->otherwise, UNLIMITED))
		return strtoull(value, NULL, 10) >= 1ull << 62;
	return !strcmp(p->otherwise, value);
}

size_t cgroup_controller_length(const char *name)
{
	return strcspn(name, ".");
}

char *cgroup_read(const char *dir, const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	char *text = NULL;

	if (read_file(path, &text) < 0)
		return NULL;
	text[strcspn(text, "\n")] = 0;
	return text;
}

int cgroup_write(const char *dir, const char *name, const char *value)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	/* A write of nothing would not reach the kernel's file at all. */
	cleanup_free char *line = xasprintf("%s\n", value);

	return fd < 0 ? -errno : write_full(fd, line, strlen(line));
}

/* The next "N" or "N-M" of a list. */
static bool next_range(const char **p, unsigned long *first, unsigned long *last)
{
	char *end;

	while (**p == ',' || **p == ' ')
		(*p)++;
	if (!isdigit((unsigned char)**p))
		return false;
	*first = *last = strtoul(*p, &end, 10);
	if (*end == '-')
		*last = strtoul(end + 1, &end, 10);
	*p = end;
	return true;
}

static bool list_has(const char *list, unsigned long n)
{
	unsigned long first, last;

	while (next_range(&list, &first, &last))
		if (n >= first && n <= last)
			return true;
	return false;
}

bool cgroup_list_within(const char *a, const char *b)
{
	unsigned long first, last;

	while (next_range(&a, &first, &last)) {
		if (last < first || last - first > 65536)
			return false;
		for (unsigned long n = first; n <= last; n++)
			if (!list_has(b, n))
				return false;
	}
	return !*a;
}
