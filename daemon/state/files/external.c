/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that do not travel.  A pipe whose other end is outside of the tree, a socket of a supervisor, a
 * terminal: the dump notes what it was by the kernel's own number (nothing of its content is read, for that
 * is not ours), and the restore puts the caller's descriptor there.
 */
#include "state/files/external.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"
#include "state/files/files.h"

/* Types that describe something else than a descriptor, and why they are not taken. */
static const struct {
	const char *name, *why;
} others[] = {
	{"mnt", "mounts are not captured"},
	{"dev", "block devices are not mounted again"},
	{"net", "network namespaces are not captured"},
	{"pid", "pid namespaces are not captured"},
	{"veth", "network devices are not captured"},
	{"macvlan", "network devices are not captured"},
	{"lsm", "security labels are not captured"},
};

/* "pipe:[12]" and "pipe[12]", "unix[12]" and "socket[12]", "/a/b" and "a/b" are the same. */
char *external_key(const char *text)
{
	const char *open = strchr(text, '[');
	size_t n = open ? (size_t)(open - text) : 0;

	if (!open || strcspn(text, "/") < n)
		return xstrdup(text + (*text == '/'));
	if (n && text[n - 1] == ':')
		n--;
	if (n == 4 && !memcmp(text, "unix", 4))
		return xasprintf("socket%s", open);
	return xasprintf("%.*s%s", (int)n, text, open);
}

static int add(const char *key, const char *name, char **list)
{
	char *longer = xasprintf("%s%s%s%s\n", *list ? *list : "", key, *name ? " " : "", name);

	free(*list);
	*list = longer;
	return 0;
}

int external_add(const char *text, char **list, struct error *e)
{
	static const char *const types[] = {"file", "pipe", "socket", "tty"};
	const char *end = strchr(text, ']');

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		size_t n = strlen(others[i].name);

		if (!strncmp(text, others[i].name, n) && (text[n] == '[' || text[n] == 0))
			return error_say(e, ENOTSUP, "--external %s is not supported: %s", text,
					 others[i].why);
	}
	if (!end || (end[1] && end[1] != ':') || strpbrk(text, " \n"))
		return error_say(e, EINVAL, "--external takes TYPE[ID] or TYPE[ID]:NAME, not \"%s\"", text);
	cleanup_free char *id = xasprintf("%.*s", (int)(end + 1 - text), text), *key = external_key(id);

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		size_t n = strlen(types[i]);

		if (!strncmp(key, types[i], n) && key[n] == '[')
			return add(key, end[1] ? end + 2 : "", list);
	}
	return error_say(e, EINVAL, "--external %s: its type is none of file, pipe, unix (or socket), tty",
			 text);
}

int inherited_parse(const char *text, struct inherited *ret, struct error *e)
{
	int fd = -1, n = 0;

	if (sscanf(text, "fd[%d]:%n", &fd, &n) != 1 || !n || fd < 0 || !text[n])
		return error_say(e, EINVAL, "--inherit-fd takes fd[N]:KEY, not \"%s\"", text);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_set(e, errno, "--inherit-fd %s: descriptor %d", text, fd);
	*ret = (struct inherited){fd, external_key(text + n)};
	return 0;
}

/* The line that begins with @id, up to its end; or with "@id" as the begin of an id ("file["). */
static const char *line_of(const char *list, const char *id)
{
	size_t n = strlen(id);

	for (const char *p = list; p && *p; p = strchr(p, '\n') + 1)
		if (!strncasecmp(p, id, n))
			return p;
	return NULL;
}

/* file[MOUNT:INODE], both hexadecimal, as fdinfo and stat have them. */
static int find_file(struct fd_facts *f, const struct state_options *o, struct error *e)
{
	const char *info = fd_facts_info(f, e), *line = info ? strstr(info, "mnt_id:") : NULL;
	char id[64];

	if (!info)
		return -e->code;
	snprintf(id, sizeof(id), "file[%lx:%llx]", line ? strtoul(line + 7, NULL, 10) : 0,
		 (unsigned long long)f->st.st_ino);
	f->external = line_of(o->externals, id);
	return 0;
}

int external_find(struct fd_facts *f, const struct state_options *o, struct error *e)
{
	unsigned long long ino = f->st.st_ino;
	char id[64] = "";

	if (!o->externals || f->flags & O_PATH)
		return 0;
	if (S_ISSOCK(f->st.st_mode))
		snprintf(id, sizeof(id), "socket[%llu]", ino);
	else if (S_ISFIFO(f->st.st_mode) && !strcmp(f->link, "pipe:"))
		snprintf(id, sizeof(id), "pipe[%llu]", ino);
	else if (S_ISCHR(f->st.st_mode))
		snprintf(id, sizeof(id), "tty[%llx:%llx]", (unsigned long long)f->st.st_rdev,
			 (unsigned long long)f->st.st_dev);
	f->external = *id ? line_of(o->externals, id) : NULL;
	return f->external || !line_of(o->externals, "file[") ? 0 : find_file(f, o, e);
}

int inherited_find(const struct state_options *o, const char *key)
{
	cleanup_free char *same = o && o->n_inherited && key ? external_key(key) : NULL;

	for (size_t i = 0; same && i < o->n_inherited; i++)
		if (!strcasecmp(o->inherited[i].key, same))
			return o->inherited[i].fd;
	return -1;
}

bool inherited_is(const struct rebuild *r, const FileDescription *m)
{
	return m->external || (m->regular && inherited_find(r->options, m->regular->path) >= 0);
}

/* --- the type ------------------------------------------------------------------------------------------- */

static bool external_match(const struct fd_facts *f)
{
	return f->external;
}

static int external_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	(void)c;
	(void)e;
	m->external = xmalloc(sizeof(*m->external));
	ferry__external_file__init(m->external);
	size_t n = strcspn(f->external, " \n");

	m->external->id = xasprintf("%.*s", (int)n, f->external);
	if (f->external[n] == ' ')
		m->external->name =
			xasprintf("%.*s", (int)strcspn(f->external + n + 1, "\n"), f->external + n + 1);
	return 0;
}

/* The caller's descriptor for it. */
static int find(struct rebuild *r, const FileDescription *m, struct error *e)
{
	if (!m->external)
		return error_say(e, EPROTO, "the image says nothing of external file %llu",
				 (unsigned long long)m->id);
	int fd = inherited_find(r->options, m->external->id);

	if (fd < 0 && m->external->name[0])
		fd = inherited_find(r->options, m->external->name);
	return fd < 0 ? error_say(e, ENOENT,
				  "pid %d fd %d: %s was external when it was dumped: bring one in its place "
				  "with "
				  "--inherit-fd fd[N]:%s",
				  m->pid, m->fd, m->external->id, m->external->id)
		      : fd;
}

static int external_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int fd = find(r, m, e);

	return MIN(fd, 0);
}

static int external_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	int fd = find(r, m, e);

	if (fd < 0)
		return fd;
	int now = fcntl(fd, F_GETFL);
	char path[32];

	/* The caller may have brought the other end of a pipe. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (now >= 0 && (now ^ m->flags) & O_ACCMODE && !strncmp(m->external->id, "pipe[", 5))
		*ret_fd = open(path, (m->flags & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC);
	else
		*ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (*ret_fd < 0)
		return error_set(e, errno, "pid %d fd %d: taking descriptor %d of the caller for %s", m->pid,
				 m->fd, fd, m->external->id);
	return 0;
}

const struct fd_type fd_external = {
	.name = "external",
	.kind = FILE_KIND(EXTERNAL),
	.by_path = true, /* nothing of it is read */
	.match = external_match,
	.capture = external_capture,
	.check = external_check,
	.open = external_open,
};
