/* SPDX-License-Identifier: Apache-2.0 */
/* RECORD_FS: working directory, root directory, umask.  The working directory may have been deleted. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "state/files/files.h"

/* The directory behind /proc/PID/@name, if its path leads to it. @ret_dead: it may be a deleted one. */
static int read_dir_link(pid_t pid, const char *name, const char *what, char **ret, Ferry__DeadDir **ret_dead,
			 struct error *e)
{
	char link[64];
	cleanup_free char *path = NULL;
	struct stat it, there;

	snprintf(link, sizeof(link), "/proc/%d/%s", pid, name);
	int r = readlink_at(AT_FDCWD, link, &path);

	if (r < 0 || stat(link, &it) < 0)
		return error_set(e, r < 0 ? -r : errno, "pid %d: reading its %s", pid, what);
	if (ret_dead && path[0] == '/' && it.st_nlink == 0) {
		*ret = files_strip_deleted(path);
		*ret_dead = dead_dir_describe(&it);
		return 0;
	}
	if (path[0] != '/' || stat(path, &there) < 0 || there.st_dev != it.st_dev ||
	    there.st_ino != it.st_ino)
		return error_say(e, ENOTSUP,
				 "pid %d: its %s %s was deleted or cannot be reached by that path from here",
				 pid, what, path);
	*ret = TAKE_PTR(path);
	return 0;
}

static int read_fs(pid_t pid, Ferry__Fs *m, struct error *e)
{
	int r = read_dir_link(pid, "cwd", "working directory", &m->cwd, &m->dead_cwd, e);

	return r < 0 ? r : read_dir_link(pid, "root", "root directory", &m->root, NULL, e);
}

static int put_fs(struct capture *c, struct process *p, uint32_t umask_value, struct error *e)
{
	Ferry__Fs *m = xmalloc(sizeof(*m));

	ferry__fs__init(m);
	m->umask = umask_value;
	int r = read_fs(process_living(p), m, e);

	if (r < 0) {
		ferry__fs__free_unpacked(m, NULL);
		return r;
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_FS, p->pid, 0, &m->base);
	return 0;
}

static int fs_preflight(struct capture *c, struct process *p, struct error *e)
{
	Ferry__Fs *m;

	(void)c;
	if (p->parent && p->parent->state != PROCESS_ZOMBIE &&
	    sys_kcmp(process_living(p), process_living(p->parent), KCMP_FS, 0, 0) == 0)
		return error_say(
			e, ENOTSUP,
			"pid %d shares its working directory with pid %d (CLONE_FS), which is not supported",
			p->pid, p->parent->pid);
	m = xmalloc(sizeof(*m));
	ferry__fs__init(m);
	int r = read_fs(process_living(p), m, e);

	ferry__fs__free_unpacked(m, NULL);
	if (r < 0 && (e->code == ENOENT || e->code == ESRCH)) { /* gone meanwhile */
		error_clear(e);
		return 0;
	}
	return r;
}

static int fs_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	(void)t;
	return put_fs(c, p, 0, e);
}

/* There is no call that only reads it. */
static int fs_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b, void **ret_state,
		  struct error *e)
{
	unsigned *entry = xmalloc(sizeof(*entry));

	(void)c;
	(void)p;
	(void)t;
	(void)e;
	*entry = batch_call(b, "read the umask", SYS_umask, ARG(0077));
	batch_call(b, "put the umask back", SYS_umask, ARG_RESULT(*entry));
	*ret_state = entry;
	return 0;
}

static int fs_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		   struct error *e)
{
	(void)t;
	return put_fs(c, p, batch_result(b, *(unsigned *)state), e);
}

static int check_dir(struct rebuild *r, int32_t pid, const char *path, const char *what, struct error *e)
{
	cleanup_free char *host = files_host_path(r, path);
	struct stat st;

	if (stat(host, &st) < 0)
		return error_set(e, errno, "pid %d: its %s %s is missing here", pid, what, host);
	return S_ISDIR(st.st_mode)
		       ? 0
		       : error_say(e, ENOTDIR, "pid %d: its %s %s is no directory here", pid, what, host);
}

static int fs_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *message,
		    struct error *e)
{
	const Ferry__Fs *m = (const Ferry__Fs *)message;
	int ret = m->dead_cwd ? 0 : check_dir(r, pid, m->cwd, "working directory", e);

	(void)tid;
	return ret < 0 ? ret : check_dir(r, pid, m->root, "root directory", e);
}

/* A deleted one is made here, before the first process goes in. */
static int fs_prepare(struct rebuild *r, const ProtobufCMessage *message, struct error *e)
{
	const Ferry__Fs *m = (const Ferry__Fs *)message;
	const char *name;

	return m->dead_cwd ? dead_dir_make(r, m->cwd, m->dead_cwd, &name, e) : 0;
}

static int fs_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *message,
		    struct batch *b, struct error *e)
{
	const Ferry__Fs *m = (const Ferry__Fs *)message;
	cleanup_free char *cwd = files_host_path(r, m->cwd), *root = files_host_path(r, m->root);
	const char *name;

	(void)p;
	(void)t;
	if (m->dead_cwd) {
		int ret = dead_dir_make(r, m->cwd, m->dead_cwd, &name, e);

		if (ret < 0)
			return ret;
		free(cwd);
		cwd = xstrdup(name);
	}
	/* Opened before the root changes: it may lie outside. */
	unsigned fd = batch_call(b, "open the working directory", SYS_openat, ARG(AT_FDCWD), ARG_STR(b, cwd),
				 ARG(O_PATH | O_DIRECTORY | O_CLOEXEC), ARG(0));

	if (strcmp(root, "/") && root[0])
		batch_call(b, "change the root directory", SYS_chroot, ARG_STR(b, root));
	batch_call(b, "change the working directory", SYS_fchdir, ARG_RESULT(fd));
	batch_call(b, "close the working directory", SYS_close, ARG_RESULT(fd));
	batch_call(b, "set the umask", SYS_umask, ARG(m->umask & 0777));
	return 0;
}

const struct state_kind kind_fs = {
	.name = "files/fs",
	.type = FERRY__RECORD_TYPE__RECORD_FS,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__fs__descriptor,
	.preflight = fs_preflight,
	.take_warm = fs_take_warm,
	.ask = fs_ask,
	.take = fs_take,
	.check = fs_check,
	.prepare = fs_prepare,
	.build = fs_build,
};
