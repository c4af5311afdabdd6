/* SPDX-License-Identifier: Apache-2.0 */
/* File locks: /proc/locks, and the lines "lock:" of /proc/PID/fdinfo/N, which are the same but for that
 * word ("1: POSIX  ADVISORY  WRITE 1234 08:01:5678 100 EOF").  A "->" marks one that is waited for. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

static bool word(const char **p, const char *s)
{
	if (!text_skip(p, s))
		return false;
	text_blanks(p);
	return true;
}

static bool kind(const char **p, struct proc_lock *l)
{
	static const struct {
		const char *name;
		enum proc_lock_kind kind;
	} kinds[] = {{"POSIX", PROC_LOCK_POSIX}, {"OFDLCK", PROC_LOCK_OFD},  {"FLOCK", PROC_LOCK_FLOCK},
		     {"LEASE", PROC_LOCK_LEASE}, {"DELEG", PROC_LOCK_OTHER}, {"ACCESS", PROC_LOCK_OTHER},
		     {"LAYOUT", PROC_LOCK_OTHER}};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (word(p, kinds[i].name)) {
			l->kind = kinds[i].kind;
			return true;
		}
	return false;
}

static bool mode(const char **p, struct proc_lock *l)
{
	if (word(p, "BREAKING") || word(p, "BREAKER"))
		l->breaking = true;
	else if (!word(p, "ADVISORY") && !word(p, "ACTIVE") && !word(p, "MANDATORY") && !word(p, "MSNFS") &&
		 !word(p, "*NOINODE*"))
		return false;
	if (word(p, "WRITE") || word(p, "RW"))
		l->write = true;
	else if (!word(p, "READ") && !word(p, "UNLCK") && !word(p, "NONE"))
		return false;
	return true;
}

static bool owner_and_file(const char **p, struct proc_lock *l)
{
	int64_t pid;
	uint64_t major = 0, minor = 0;

	if (!text_i64(p, &pid) || pid < INT_MIN || pid > INT_MAX)
		return false;
	l->pid = pid;
	text_blanks(p);
	if (text_skip(p, "<none>:0"))
		return true;
	if (!text_u64(p, 16, &major) || !text_skip(p, ":") || !text_u64(p, 16, &minor) ||
	    !text_skip(p, ":") || !text_u64(p, 10, &l->ino) || major > UINT32_MAX || minor > UINT32_MAX)
		return false;
	l->major = major;
	l->minor = minor;
	return true;
}

static bool range(const char **p, struct proc_lock *l)
{
	int64_t start, end;

	text_blanks(p);
	if (!text_i64(p, &start) || start < 0)
		return false;
	text_blanks(p);
	l->start = start;
	l->end = PROC_LOCK_EOF;
	if (text_skip(p, "EOF"))
		return true;
	if (!text_i64(p, &end) || end < start)
		return false;
	l->end = end;
	return true;
}

static bool lock_line(const char **p, struct proc_lock *l)
{
	uint64_t number;

	text_blanks(p);
	if (!text_u64(p, 10, &number) || !text_skip(p, ":"))
		return false;
	text_blanks(p);
	l->waiting = word(p, "->");
	return kind(p, l) && mode(p, l) && owner_and_file(p, l) && range(p, l) && (!**p || **p == '\n');
}

int proc_locks_parse(const char *text, bool fdinfo, struct proc_lock **ret, size_t *ret_n, struct error *e)
{
	cleanup_free struct proc_lock *v = NULL;
	size_t n = 0, cap = 0;

	for (const char *p = text; *p; p = text_next_line(p)) {
		struct proc_lock l = {0};
		const char *start = p;

		if (fdinfo && !text_skip(&p, "lock:"))
			continue;
		if (!lock_line(&p, &l))
			return error_say(e, EINVAL, "a line on file locks in /proc is malformed: %.*s",
					 (int)MIN(strcspn(start, "\n"), 120ul), start);
		if (n == cap) {
			cap = cap ? cap * 2 : 8;
			v = xrealloc(v, cap * sizeof(*v));
		}
		v[n++] = l;
	}
	*ret = v ? TAKE_PTR(v) : xcalloc(1, sizeof(*v));
	*ret_n = n;
	return 0;
}

int proc_locks_read(struct proc_lock **ret, size_t *ret_n, struct error *e)
{
	cleanup_free char *text = NULL;
	ssize_t n = read_file("/proc/locks", &text);

	if (n == -ENOENT) { /* a kernel without file locks */
		*ret = xcalloc(1, sizeof(**ret));
		*ret_n = 0;
		return 0;
	}
	return n < 0 ? error_set(e, -n, "reading /proc/locks") : proc_locks_parse(text, false, ret, ret_n, e);
}
