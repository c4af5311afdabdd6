/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service of systemd writes to its standard output and error goes to the journal: a stream whose other
 * end is journald's.  Nothing comes back, and what was written is journald's.  So the connection is made
 * again with the journal of the destination.  It begins, as systemd begins it, with a header that says whose
 * lines these are: a line each for the identifier, the unit, the priority of lines without one (6: info),
 * whether lines may begin with one ("<3>"), and three for copies that are not made.  The process itself
 * connects, for journald notes who did.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/sockets/unix.h"

static const char *const streams[] = {"/run/systemd/journal/stdout", NULL};
static const char *const logs[] = {"/dev/log", "/run/systemd/journal/dev-log", "/run/systemd/journal/socket",
				   NULL};

/* "nginx.service" of "/system.slice/nginx.service/worker"; malloc'ed, "" if there is none. */
static char *unit_of(pid_t pid)
{
	cleanup_free char *file = xasprintf("/proc/%d/cgroup", pid), *text = NULL;

	if (read_file(file, &text) < 0)
		return xstrdup("");
	for (const char *at = text; (at = strstr(at, ".service")); at += 8) {
		const char *start = at;

		while (start > text && start[-1] != '/' && start[-1] != '\n')
			start--;
		if (start > text && start[-1] == '/' && (at[8] == '/' || at[8] == '\n' || !at[8]))
			return xasprintf("%.*s", (int)(at + 8 - start), start);
	}
	return xstrdup("");
}

static bool is_one_of(const char *const *list, const struct sockaddr_un *name, socklen_t n)
{
	const size_t head = offsetof(struct sockaddr_un, sun_path);
	size_t length = n > head ? strnlen(name->sun_path, n - head) : 0;

	for (; *list; list++)
		if (length == strlen(*list) && !memcmp(name->sun_path, *list, length))
			return true;
	return false;
}

bool unix_journal_is(int type, const struct sockaddr_un *name, socklen_t n)
{
	return (type == SOCK_STREAM && is_one_of(streams, name, n)) ||
	       (type == SOCK_DGRAM && is_one_of(logs, name, n));
}

void unix_journal_greeting(pid_t pid, const char *comm, Ferry__UnixSocket *u)
{
	cleanup_free char *unit = unit_of(pid), *name = xstrdup(comm);

	for (char *at = name; (at = strchr(at, '\n')); at++) /* a name may have any byte */
		*at = ' ';

	u->greeting.data = (uint8_t *)xasprintf("%s\n%s\n6\n1\n0\n0\n0\n", name, unit);
	u->greeting.len = strlen((char *)u->greeting.data);
}

int unix_outside_check(const FileDescription *m, struct error *e)
{
	const Ferry__UnixSocket *u = m->socket->unix_socket;
	cleanup_free char *path = xasprintf("%.*s", (int)u->peer_name.len, (char *)u->peer_name.data);
	struct stat st;

	if (*path != '/' || (stat(path, &st) == 0 && S_ISSOCK(st.st_mode)))
		return 0;
	return error_say(
		e, ENOENT,
		"pid %d fd %d: its unix socket is connected to %s, and there is no such socket here; "
		"a dump with --external unix[%llu] leaves it to the caller of the restore",
		m->pid, m->fd, path, (unsigned long long)u->ino);
}

int unix_journal_connect(struct rebuild *r, size_t i, const struct sockaddr_un *a, socklen_t n,
			 struct error *e)
{
	const FileDescription *m = unix_message_at(r, i);
	const Ferry__UnixSocket *u = unix_at(r, i);
	const Ferry__Creds *creds = (const Ferry__Creds *)snapshot_find(
		r->snapshot, FERRY__RECORD_TYPE__RECORD_CREDS, m->pid, m->pid);
	struct process *p = r->run_in ? tree_find(r->tree, m->pid) : NULL;
	struct unix_maker k = {0};
	int fd = unix_fd_at(r, i);

	if (p && p->state != PROCESS_ZOMBIE)
		k.p = p;
	if (k.p && creds && creds->n_uid > 1 && creds->n_gid > 1) {
		k.uid = creds->uid[1];
		k.gid = creds->gid[1];
	}
	int x = unix_maker_connect_to(r, &k, m, fd, a, n, e);

	if (x >= 0)
		x = write_full(fd, u->greeting.data, u->greeting.len);
	return x < 0 && !error_is(e) ? error_set(e, -x, "pid %d fd %d: writing to the journal", m->pid, m->fd)
				     : x;
}
