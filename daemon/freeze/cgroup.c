/* SPDX-License-Identifier: Apache-2.0 */
#include "freeze/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <string.h>

#include "base/util.h"

/* Version 2 has cgroup.freeze ("1") and cgroup.events ("frozen 1"); version 1 freezer.state for both. */
struct freezer {
	const char *control, *on, *off, *state, *is_on;
};
static const struct freezer versions[] = {
	{"cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"},
	{"freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"},
};

static const struct freezer *find_version(const char *dir, struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		cleanup_free char *path = xasprintf("%s/%s", dir, versions[i].control);

		if (access(path, W_OK) == 0)
			return &versions[i];
	}
	error_say(e, ENOENT, "%s is not a cgroup that can be frozen", dir);
	return NULL;
}

bool cgroup_is_v1(const char *dir)
{
	struct error ignored = ERROR_INIT;

	return find_version(dir, &ignored) == &versions[1];
}

int cgroup_set(const char *dir, bool frozen, struct error *e)
{
	const struct freezer *f = find_version(dir, e);

	if (!f)
		return -ENOENT;
	cleanup_free char *path = xasprintf("%s/%s", dir, f->control);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	const char *word = frozen ? f->on : f->off;
	int r = fd < 0 ? -errno : write_full(fd, word, strlen(word));

	return r < 0 ? error_set(e, -r, "%s cannot be set to %s", path, word) : 0;
}

static int is_frozen(const char *dir, const struct freezer *f, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, f->state);
	cleanup_free char *text = NULL;
	ssize_t r = read_file(path, &text);

	if (r < 0)
		return error_set(e, (int)-r, "%s cannot be read", path);
	return strstr(text, f->is_on) != NULL;
}

bool cgroup_is_frozen(const char *dir)
{
	struct error ignored = ERROR_INIT;
	const struct freezer *f = find_version(dir, &ignored);

	return f && is_frozen(dir, f, &ignored) > 0;
}

/* Reading again and again: waiting for the notification with poll() takes hundreds of times longer. */
int cgroup_freeze(const char *dir, int timeout_ms, bool *ret_was_frozen, struct error *e)
{
	const struct freezer *f = find_version(dir, e);

	if (!f)
		return -ENOENT;
	int r = is_frozen(dir, f, e);

	if (r < 0)
		return r;
	*ret_was_frozen = r > 0;
	if (r > 0)
		return 0;
	uint64_t limit = now_ns() + (uint64_t)timeout_ms * 1000000;

	r = cgroup_set(dir, true, e);
	while (r == 0 && (r = is_frozen(dir, f, e)) == 0) {
		if (now_ns() > limit)
			r = error_say(e, ETIMEDOUT, "%s did not freeze within %d ms", dir, timeout_ms);
		/* Not sched_yield(): we may be a real-time task (base/urgent.h), and the target is none. */
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	}
	if (r < 0)
		cgroup_set(dir, false, e);
	return r < 0 ? r : 0;
}
