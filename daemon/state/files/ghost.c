/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleted regular files.  Nothing can give them a name again (linkat(2) says ENOENT), so their content
 * travels, once per file however many descriptions it has, and with its holes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "state/files/files.h"
#include "state/memory/memory.h"
#include "stream/stream.h"

#define GHOST_ID_BASE (1ull << 32) /* apart from the ids of memory objects */
#define COPY_CHUNK    (256u << 10)

struct ghost_object {
	uint32_t place; /* in the stock */
};

static bool ghost_match(const struct fd_facts *f)
{
	return S_ISREG(f->st.st_mode) && f->st.st_nlink == 0 && f->link[0] == '/' && !(f->flags & O_PATH);
}

/* Call @each for every range of the file that is no hole. The offset of @fd moves: it must be an open of our
 * own. */
static int each_extent(int fd, uint64_t size,
		       int (*each)(void *ctx, uint64_t from, uint64_t to, struct error *e), void *ctx,
		       struct error *e)
{
	for (off_t at = 0; (uint64_t)at < size;) {
		off_t data = lseek(fd, at, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			return 0;
		off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);

		if (data >= 0 && hole < 0 && errno == ENXIO)
			return 0; /* cut off meanwhile, by a process outside of the tree */
		if (hole < 0)
			return error_set(e, errno, "looking for holes of a deleted file");
		int r = each(ctx, data, MIN((uint64_t)hole, size), e);

		if (r < 0)
			return r;
		at = hole;
	}
	return 0;
}

struct put_extent {
	struct capture *c;
	uint64_t id;
	int fd;
	uint8_t *buffer;
};

static int put_extent(void *ctx, uint64_t from, uint64_t to, struct error *e)
{
	struct put_extent *p = ctx;

	for (uint64_t n; from < to; from += n) {
		n = MIN(to - from, COPY_CHUNK);
		int r = pread_full(p->fd, p->buffer, n, from);

		if (r < 0)
			return error_set(e, -r, "reading a deleted file");
		r = p->c->pages.put(p->c->pages.ctx, SPACE_FILE, p->id, from, p->buffer, n, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int put_content(struct capture *c, const struct fd_facts *f, uint64_t id, struct error *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->copy);
	cleanup_close int own = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME);

	if (own < 0)
		return error_set(e, errno, "pid %d fd %d: opening deleted file %s", f->pid, f->fd, f->link);
	cleanup_free uint8_t *buffer = xmalloc(COPY_CHUNK);
	struct put_extent p = {c, id, own, buffer};
	int r = each_extent(own, f->st.st_size, put_extent, &p, e);

	return r < 0 ? error_prefix(e, "pid %d fd %d: %s", f->pid, f->fd, f->link) : 0;
}

static int ghost_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	uint64_t limit = c->options ? c->options->ghost_limit : 1 << 20;

	/* Blocks, not size: holes cost nothing. */
	if (MIN((uint64_t)f->st.st_blocks * 512, (uint64_t)f->st.st_size) > limit)
		return error_say(e, EFBIG,
				 "pid %d fd %d: deleted file %s has %llu bytes, more than the limit of %llu "
				 "(--ghost-limit)",
				 f->pid, f->fd, f->link, (unsigned long long)f->st.st_size,
				 (unsigned long long)limit);
	uint32_t *slot = index_map_at(&files_capture_of(c)->by_ghost, f->st.st_dev, f->st.st_ino);
	bool first = !*slot;

	if (first)
		*slot = f->id;
	m->ghost = xmalloc(sizeof(*m->ghost));
	ferry__ghost_file__init(m->ghost);
	m->ghost->ghost = GHOST_ID_BASE + *slot;
	m->ghost->path = files_strip_deleted(f->link);
	m->ghost->mode = f->st.st_mode;
	m->ghost->uid = f->st.st_uid;
	m->ghost->gid = f->st.st_gid;
	m->ghost->size = f->st.st_size;
	m->ghost->mtime_ns = (int64_t)f->st.st_mtim.tv_sec * 1000000000 + f->st.st_mtim.tv_nsec;
	m->ghost->atime_ns = (int64_t)f->st.st_atim.tv_sec * 1000000000 + f->st.st_atim.tv_nsec;
	/* A mapping of the file made it a memory object: then that is the file, or descriptor and mapping
	 * would part. */
	m->ghost->object = memory_object_find(c->memory, f->st.st_dev, f->st.st_ino);
	return first && f->frozen && !m->ghost->object ? put_content(c, f, m->ghost->ghost, e) : 0;
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

struct fill_extent {
	int from, to;
	uint8_t *buffer;
};

static int fill_extent(void *ctx, uint64_t from, uint64_t to, struct error *e)
{
	struct fill_extent *x = ctx;

	for (uint64_t n; from < to; from += n) {
		n = MIN(to - from, COPY_CHUNK);
		int r = pread_full(x->from, x->buffer, n, from);

		if (r >= 0)
			r = pwrite_full(x->to, x->buffer, n, from);
		if (r < 0)
			return error_set(e, -r, "writing a deleted file");
	}
	return 0;
}

static int fill(int fd, int content, const Ferry__GhostFile *g, struct error *e)
{
	struct stat st;
	struct timespec times[2] = {{g->atime_ns / 1000000000, g->atime_ns % 1000000000},
				    {g->mtime_ns / 1000000000, g->mtime_ns % 1000000000}};

	if (ftruncate(fd, g->size) < 0)
		return error_set(e, errno, "setting the size of deleted file %s", g->path);
	if (content >= 0 && fstat(content, &st) == 0) {
		cleanup_free uint8_t *buffer = xmalloc(COPY_CHUNK);
		struct fill_extent x = {content, fd, buffer};
		int r = each_extent(content, MIN((uint64_t)st.st_size, g->size), fill_extent, &x, e);

		if (r < 0)
			return error_prefix(e, "%s", g->path);
	}
	if (fchown(fd, g->uid, g->gid) < 0 || fchmod(fd, g->mode & 07777) < 0)
		return error_set(e, errno, "setting owner and mode of deleted file %s", g->path);
	futimens(fd, times);
	return 0;
}

/* Made under a name, because the name is what /proc shows of it for ever, and removed at once. */
static int create(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int err = 0;

	for (unsigned i = 0;; i++) {
		cleanup_free char *name = files_temporary_name(r, m->ghost->path, i);

		if (!name)
			return error_set(e, err, "pid %d fd %d: making deleted file %s again", m->pid, m->fd,
					 m->ghost->path);
		cleanup_close int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

		if (fd < 0) {
			err = errno;
			continue;
		}
		unlink(name);
		int ret = fill(fd, r->ghost_fd ? r->ghost_fd(r, m->ghost->ghost) : -1, m->ghost, e);

		return ret < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : TAKE_FD(fd);
	}
}

static int copy_object(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int object = r->object_fd ? r->object_fd(r, m->ghost->object) : -1;
	int fd = object < 0 ? -1 : fcntl(object, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? error_say(e, ENOENT,
				  "pid %d fd %d: memory object %llu of deleted file %s is not there", m->pid,
				  m->fd, (unsigned long long)m->ghost->object, m->ghost->path)
		      : fd;
}

/* A file that never had a name shows that in the flags of its first description, for ever: made in the same
 * way, with the access that description has. */
static int create_nameless(struct rebuild *r, const FileDescription *m, struct error *e)
{
	cleanup_free char *path = files_host_path(r, m->ghost->path);
	char *slash = strrchr(path, '/');
	int flags = (m->flags & ~(O_APPEND | O_DIRECT | O_NONBLOCK | O_ASYNC)) | O_CLOEXEC;

	if (slash)
		slash[slash == path] = 0;
	cleanup_close int fd = open(path, flags, 0600);

	if (fd < 0)
		fd = open("/tmp", flags, 0600);
	if (fd < 0)
		return error_set(e, errno, "pid %d fd %d: making a file without a name in %s", m->pid, m->fd,
				 path);
	int ret = fill(fd, r->ghost_fd ? r->ghost_fd(r, m->ghost->ghost) : -1, m->ghost, e);

	return ret < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : TAKE_FD(fd);
}

static bool was_nameless(const FileDescription *m)
{
	return (m->flags & O_TMPFILE) == O_TMPFILE;
}

/* The description that made the file without a name, if it is still there. */
static const FileDescription *find_nameless(struct rebuild *r, uint64_t ghost)
{
	struct files_rebuild *f = files_rebuild_of(r);
	const Ferry__Files *all = f->message;

	for (size_t i = all->n_files; !f->nameless_known && i-- > 0;)
		if (all->files[i]->ghost && was_nameless(all->files[i]))
			*index_map_at(&f->nameless, all->files[i]->ghost->ghost, 0) = i + 1;
	f->nameless_known = true;
	uint32_t at = index_map_find(&f->nameless, ghost, 0);

	return at ? all->files[at - 1] : NULL;
}

static int make_ghost(struct rebuild *r, const FileDescription *m, struct error *e)
{
	const FileDescription *nameless = find_nameless(r, m->ghost->ghost);

	if (m->ghost->object)
		return copy_object(r, m, e);
	return nameless ? create_nameless(r, nameless, e) : create(r, m, e);
}

static int ghost_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);

	if (!m->ghost)
		return error_say(e, EPROTO, "the image says nothing of deleted file %llu",
				 (unsigned long long)m->id);
	uint32_t *slot = index_map_at(&f->ghost_by_id, m->ghost->ghost, 0);

	if (!*slot) {
		int fd = make_ghost(r, m, e);

		if (fd < 0)
			return fd;
		FILES_GROW(f->ghosts, f->n_ghosts, f->cap_ghosts);
		f->ghosts[f->n_ghosts++].place = fd_stock_add(&f->stock, fd);
		*slot = f->n_ghosts;
	}
	char path[64];

	int object = fd_stock_get(&f->stock, f->ghosts[*slot - 1].place, e);

	if (object < 0)
		return object;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", object);
	cleanup_close int fd = was_nameless(m) && !m->ghost->object
				       ? fcntl(object, F_DUPFD_CLOEXEC, 0)
				       : open(path, files_open_flags(m->flags) & ~O_NOFOLLOW);

	if (fd < 0)
		return error_set(e, errno, "pid %d fd %d: opening deleted file %s", m->pid, m->fd,
				 m->ghost->path);
	if (m->pos && lseek(fd, m->pos, SEEK_SET) < 0)
		return error_set(e, errno, "pid %d fd %d: going to position %lld", m->pid, m->fd,
				 (long long)m->pos);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void ghosts_free(struct files_rebuild *f)
{
	free(f->ghosts);
	f->ghosts = NULL;
	f->n_ghosts = f->cap_ghosts = 0;
	index_map_deinit(&f->ghost_by_id);
	index_map_deinit(&f->nameless);
	f->nameless_known = false;
}

const struct fd_type fd_ghost = {
	.name = "deleted file",
	.kind = FILE_KIND(GHOST),
	.match = ghost_match,
	.capture = ghost_capture,
	.open = ghost_open,
};
