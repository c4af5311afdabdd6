/* SPDX-License-Identifier: Apache-2.0 */
/* The host's descriptors of a tree that is being rebuilt. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "state/files/files.h"

struct files_rebuild *files_rebuild_of(struct rebuild *r)
{
	if (!r->files)
		r->files = xcalloc(1, sizeof(struct files_rebuild));
	return r->files;
}

/* Processes that are still to be made. */
static bool is_of_tree(void *ctx, pid_t pid)
{
	const struct rebuild *r = ctx;
	const Ferry__Tree *t =
		(const Ferry__Tree *)snapshot_find(r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);

	for (size_t i = 0; t && i < t->n_processes; i++)
		if (t->processes[i]->pid == pid)
			return true;
	return false;
}

int files_rebuild_begin(struct rebuild *r, const Ferry__Files *all, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);

	f->message = all;
	free(f->places);
	f->places = xcalloc(all->n_files, sizeof(*f->places));
	f->n_places = all->n_files;
	for (size_t i = 0; i < all->n_files; i++) {
		uint32_t *slot = index_map_at(&f->by_id, all->files[i]->id, 0);

		if (*slot)
			return error_say(e, EPROTO, "the image has two open files with the number %llu",
					 (unsigned long long)all->files[i]->id);
		*slot = i + 1;
	}
	f->stock.wanted = is_of_tree;
	f->stock.ctx = r;
	return fd_stock_init(&f->stock, e);
}

void files_put(struct rebuild *r, size_t index, int fd)
{
	struct files_rebuild *f = files_rebuild_of(r);

	f->places[index] = fd_stock_add(&f->stock, fd);
}

bool files_has(struct rebuild *r, size_t index)
{
	return files_rebuild_of(r)->places[index];
}

int files_get(struct rebuild *r, size_t index, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);

	return f->places[index] ? fd_stock_get(&f->stock, f->places[index], e) : -EBADF;
}

int files_trim(struct rebuild *r, struct error *e)
{
	return fd_stock_trim(&files_rebuild_of(r)->stock, e);
}

bool files_where(struct rebuild *r, uint64_t id, pid_t *ret_pid, int *ret_fd)
{
	struct files_rebuild *f = files_rebuild_of(r);
	uint32_t i = index_map_find(&f->by_id, id, 0);

	if (!i || !f->places[i - 1])
		return false;
	fd_stock_where(&f->stock, f->places[i - 1], ret_pid, ret_fd);
	return true;
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
	struct error ignore = ERROR_INIT;

	return i ? MAX(files_get(r, i - 1, &ignore), -1) : -1;
}

void files_rebuild_close(struct rebuild *r)
{
	struct files_rebuild *f = r->files;

	if (!f)
		return;
	fd_stock_free(&f->stock);
	f->n_places = 0;
	index_map_deinit(&f->by_id);
	pipes_free(f);
	ghosts_free(f);
	pidfds_free(f);
	rings_free(f);
	terminals_free(f);
	dead_dirs_free(f);
	unix_rebuild_free(r);
}

/* Those with something to do at the end are taken out of the stock, all others closed. */
static int keep_late_ones(struct rebuild *r, struct fd_stock *late, struct error *e)
{
	struct files_rebuild *f = r->files;
	int ret = 0;

	for (size_t i = 0; i < f->n_places && ret >= 0; i++) {
		const struct fd_type *type = fd_type_of_kind(f->message->files[i]->kind);
		uint32_t place = 0;

		if (f->places[i] && type && type->late) {
			int fd = files_get(r, i, e), own = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 0);

			ret = fd < 0 ? fd : own < 0 ? error_set(e, errno, "copying a descriptor") : 0;
			if (ret >= 0)
				place = fd_stock_add(late, own);
		}
		f->places[i] = place;
		if (ret >= 0)
			ret = files_trim(r, e);
	}
	fd_stock_free(&f->stock);
	return ret;
}

int files_rebuild_finish(struct rebuild *r, struct error *e)
{
	struct files_rebuild *f = r->files;
	struct fd_stock late = {0};

	if (!f)
		return 0;
	int ret = keep_late_ones(r, &late, e);

	f->stock = late;
	/* closing is seen, too */
	pipes_free(f);
	ghosts_free(f);
	dead_dirs_free(f);
	unix_rebuild_free(r);
	for (size_t i = 0; i < f->n_places && ret >= 0; i++)
		if (f->places[i])
			ret = fd_type_of_kind(f->message->files[i]->kind)
				      ->late(r, f->message->files[i], files_get(r, i, e), e);
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
	free(f->places);
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
