/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

static const struct {
	int resource;
	const char *name;
} limits[] = {
	{RLIMIT_CPU, "Max cpu time"},
	{RLIMIT_FSIZE, "Max file size"},
	{RLIMIT_DATA, "Max data size"},
	{RLIMIT_STACK, "Max stack size"},
	{RLIMIT_CORE, "Max core file size"},
	{RLIMIT_RSS, "Max resident set"},
	{RLIMIT_NPROC, "Max processes"},
	{RLIMIT_NOFILE, "Max open files"},
	{RLIMIT_MEMLOCK, "Max locked memory"},
	{RLIMIT_AS, "Max address space"},
	{RLIMIT_LOCKS, "Max file locks"},
	{RLIMIT_SIGPENDING, "Max pending signals"},
	{RLIMIT_MSGQUEUE, "Max msgqueue size"},
	{RLIMIT_NICE, "Max nice priority"},
	{RLIMIT_RTPRIO, "Max realtime priority"},
	{RLIMIT_RTTIME, "Max realtime timeout"},
};
_Static_assert(ARRAY_SIZE(limits) == ARRAY_SIZE(((struct proc_limits *)0)->soft), "all limits have a name");

static bool value(const char **p, uint64_t *ret)
{
	const char *start = *p;

	text_blanks(p);
	if (*p == start)
		return false;
	if (text_skip(p, "unlimited")) {
		*ret = ~0ull;
		return true;
	}
	return text_u64(p, 10, ret);
}

/* @text behind the name of the limit, or NULL. */
static const char *find(const char *text, const char *name)
{
	for (const char *p = text; *p; p = text_next_line(p)) {
		const char *q = p;

		if (text_skip(&q, name) && *q == ' ')
			return q;
	}
	return NULL;
}

int proc_limits_parse(const char *text, struct proc_limits *ret, struct error *e)
{
	struct proc_limits l;

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const char *p = find(text, limits[i].name);
		int n = limits[i].resource;

		if (!p || !value(&p, &l.soft[n]) || !value(&p, &l.hard[n]))
			return error_say(e, EINVAL, "a limits file of /proc has no valid line \"%s\"",
					 limits[i].name);
	}
	*ret = l;
	return 0;
}

int proc_limits_read(pid_t pid, struct proc_limits *ret, struct error *e)
{
	cleanup_free char *text = NULL;
	int r = proc_file_read(pid, 0, "limits", &text, e);

	if (r < 0)
		return r;
	r = proc_limits_parse(text, ret, e);
	return r < 0 ? error_prefix(e, "process %d", pid) : 0;
}
