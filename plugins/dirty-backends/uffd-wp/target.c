/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the target itself, and done in it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "uffd.h"

/* With more threads than this it costs too much to look at each. */
#define MANY_THREADS 64

bool target_outside_call(pid_t pid)
{
	char path[64];
	bool outside = false;
	unsigned n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *d = opendir(path);

	if (!d)
		return true;
	for (struct dirent *ent = readdir(d); ent && !outside; ent = readdir(d)) {
		char text[32] = "";

		if (ent->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.10s/syscall", pid, ent->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t got = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

		if (fd >= 0)
			close(fd);
		/* "0 0x3 ...": in call 0. "-1 0x7ffd...": in none. "running": not stopped, or so it seems. */
		outside = got <= 0 || text[0] < '0' || text[0] > '9' || ++n > MANY_THREADS;
	}
	closedir(d);
	return outside;
}

/* PROCMAP_QUERY of linux/fs.h. */
struct map_query {
	uint64_t size, flags, addr;
	uint64_t start, end, vma_flags, page_size, offset, inode;
	uint32_t dev_major, dev_minor, name_size, build_id_size;
	uint64_t name, build_id;
};
#define IOCTL_MAP_QUERY _IOWR('f', 17, struct map_query)

static int query(int maps, uint64_t addr, struct map_query *ret)
{
	*ret = (struct map_query){.size = sizeof(*ret), .addr = addr};
	return ioctl(maps, IOCTL_MAP_QUERY, ret) < 0 ? -errno : 0;
}

bool target_borders(int maps, const struct dirty_vma *v, struct borders *ret)
{
	struct map_query q;
	int r = query(maps, v->start, &q);

	memset(ret, 0, sizeof(*ret));
	if (r == -ENOTTY)
		return true;
	if (r < 0)
		return false;
	if (q.start != v->start || q.end != v->end) {
		ret->merged = q.start <= v->start && q.end >= v->end;
		return false;
	}
	if (query(maps, v->start - 1, &q) == 0)
		ret->below_start = q.start;
	if (query(maps, v->end, &q) == 0)
		ret->above_end = q.end;
	return true;
}

int target_data(pid_t pid, int maps, const struct dirty_vma *v,
		int (*each)(void *ctx, uint64_t start, uint64_t end), void *ctx)
{
	struct map_query q;
	char path[96];
	int r = query(maps, v->start, &q);

	if (r < 0 || q.start != v->start || q.end != v->end)
		return r < 0 ? r : -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/map_files/%llx-%llx", pid, (unsigned long long)v->start,
		 (unsigned long long)v->end);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	uint64_t at = q.offset, end = q.offset + (v->end - v->start);

	r = 0;
	while (r == 0 && at < end) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA),
		      hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);

		if (data < 0 || hole < 0) {
			r = errno == ENXIO ? 0 : -errno;
			break;
		}
		uint64_t from = (uint64_t)data & ~(PAGE - 1), to = ((uint64_t)hole + PAGE - 1) & ~(PAGE - 1);

		at = to < end ? to : end;
		if (from < at)
			r = each(ctx, from - q.offset + v->start, at - q.offset + v->start);
	}
	close(fd);
	return r;
}
