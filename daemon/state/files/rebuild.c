/* SPDX-License-Identifier: Apache-2.0 */
/* The host's descriptors of a tree that is being rebuilt. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>

#include "base/util.h"
#include "state/files/files.h"

struct files_rebuild *files_rebuild_of(struct rebuild *r)
{
	if (!r->files)
		r->files = xcalloc(1, sizeof(struct files_rebuild));
	return r->files;
}

/* Room for one descriptor of ours for each description, and the ones it takes to make them. */
static int raise_limit(size_t n, struct error *e)
{
	struct rlimit l;
	rlim_t want = n * 2 + 256;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return error_set(e, errno, "reading the limit of open files");
	if (l.rlim_cur >= want)
		return 0;
	if (l.rlim_max < want) {
		struct rlimit more = {want, want};

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return 0;
		if (l.rlim_max < n + 256)
			return error_say(
				e, EMFILE,
				"%zu open files are to be made, but the limit here is %llu (ulimit -n)", n,
				(unsigned long long)l.rlim_max);
		want = l.rlim_max;
	}
	l.rlim_cur = want;
	return setrlimit(RLIMIT_NOFILE, &l) < 0 ? error_set(e, errno, "raising the limit of open files") : 0;
}

int files_rebuild_begin(struct rebuild *r, const Ferry__Files *all, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);

	f->message = all;
	f->fds = xrealloc(f->fds, all->n_files * sizeof(*f->fds));
	for (size_t i = 0; i < all->n_files; i++)
		f->fds[i] = -1;
	f->n_fds = all->n_files;
	for (size_t i = 0; i < all->n_files; i++) {
		uint32_t *slot = index_map_at(&f->by_id, all->files[i]->id, 0);

		if (*slot)
			return error_say(e, EPROTO, "the image has two open files with the number %llu",
					 (unsigned long long)all->files[i]->id);
		*slot = i + 1;
	}
	return raise_limit(all->n_files, e);
}

const FileDescription *files_find(struct rebuild *r, uint64_t id)
{
	struct files_rebuild *f = files_rebuild_of(r);
	uint32_t i = index_map_find(&f->by_id, id, 0);

	return i ? f->message->files[i - 1] : NULL;
}

int files_host_fd(struct rebuild *r, uint64_t id)
{
	struct files_rebuild *f = files_rebuild_of(r);
	uint32_t i = index_map_find(&f->by_id, id, 0);

	return i ? f->fds[i - 1] : -1;
}

void files_rebuild_close(struct rebuild *r)
{
	struct files_rebuild *f = r->files;

	if (!f)
		return;
	for (size_t i = 0; i < f->n_fds; i++)
		if (f->fds[i] >= 0)
			close(f->fds[i]);
	f->n_fds = 0;
	index_map_deinit(&f->by_id);
	pipes_free(f);
	ghosts_free(f);
	pidfds_free(f);
	terminals_free(f);
	dead_dirs_free(f);
	unix_rebuild_free(r);
}

int files_rebuild_finish(struct rebuild *r, struct error *e)
{
	struct files_rebuild *f = r->files;
	int ret = 0;

	for (size_t i = 0; f && i < f->n_fds; i++) {
		const struct fd_type *type = fd_type_of_kind(f->message->files[i]->kind);

		if (f->fds[i] < 0 || (type && type->late))
			continue;
		close(f->fds[i]);
		f->fds[i] = -1;
	}
	if (f) { /* closing is seen, too */
		pipes_free(f);
		ghosts_free(f);
		dead_dirs_free(f);
		unix_rebuild_free(r);
	}
	for (size_t i = 0; f && i < f->n_fds && ret >= 0; i++)
		if (f->fds[i] >= 0)
			ret = fd_type_of_kind(f->message->files[i]->kind)
				      ->late(r, f->message->files[i], f->fds[i], e);
	files_rebuild_close(r);
	return ret;
}

void files_rebuild_free(struct rebuild *r, bool started)
{
	struct files_rebuild *f = r->files;

	tcp_rebuild_free(r);
	if (!f)
		return;
	files_rebuild_close(r);
	for (size_t i = f->n_undo; i-- > 0;) {
		if (started)
			unlink(f->undo[i].backup);
		else
			rename(f->undo[i].backup, f->undo[i].path);
		free(f->undo[i].path);
		free(f->undo[i].backup);
	}
	free(f->undo);
	link_remap_done(f, started);
	mqueues_free(f, started);
	for (size_t i = 0; i < f->n_labels; i++)
		free(f->labels[i]);
	free(f->labels);
	free(f->fds);
	free(f);
	r->files = NULL;
}

const char *files_keep_label(struct rebuild *r, char *label)
{
	struct files_rebuild *f = files_rebuild_of(r);

	FILES_GROW(f->labels, f->n_labels, f->cap_labels);
	f->labels[f->n_labels++] = label;
	return label;
}

int files_move_away(struct rebuild *r, const char *path, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);
	cleanup_free char *backup = xasprintf("%s.ferry-%d-%zu", path, getpid(), f->n_undo);

	if (rename(path, backup) < 0)
		return errno == ENOENT ? 0 : error_set(e, errno, "moving %s out of the way", path);
	f->undo = xrealloc(f->undo, (f->n_undo + 1) * sizeof(*f->undo));
	f->undo[f->n_undo++] = (struct rename_undo){xstrdup(path), TAKE_PTR(backup)};
	return 0;
}

/* O_ASYNC is not among them: its signals carry the number it was switched on with, so its process does that.
 */
#define CHANGEABLE (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

int files_set_flags(int fd, int flags, const FileDescription *m, struct error *e)
{
	if (flags & O_PATH)
		return 0;
	int now = fcntl(fd, F_GETFL);

	if (now < 0)
		return error_set(e, errno, "pid %d fd %d: reading flags", m->pid, m->fd);
	if (!((now ^ flags) & CHANGEABLE))
		return 0;
	if (fcntl(fd, F_SETFL, (now & ~CHANGEABLE) | (flags & CHANGEABLE)) < 0)
		return error_set(e, errno, "pid %d fd %d: setting flags 0%o", m->pid, m->fd, flags);
	return 0;
}
