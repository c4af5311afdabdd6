/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory objects: memory that has an identity of its own and may be mapped by several processes. What
 * of it goes in a round is in shared.c. */
#include "state/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"
#include "state/memory/named.h"

#define MFD_EXEC_ 0x10u /* linux/memfd.h, since 6.3 */

uint64_t memory_object_find(const struct memory *m, uint64_t dev, uint64_t ino)
{
	for (size_t i = 0; m && i < m->n_objects; i++)
		if (m->objects[i]->dev == dev && m->objects[i]->ino == ino &&
		    m->objects[i]->kind != FERRY__OBJECT_KIND__OBJECT_SYSV) {
			m->objects[i]->has_fd = true;
			return m->objects[i]->id;
		}
	return 0;
}

int memory_object_of_fd(struct capture *c, int fd, Ferry__ObjectKind kind, const char *name, uint64_t *ret_id,
			struct error *e)
{
	struct memory *m = c->memory;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set(e, errno, "stat of shared memory object %s", name);
	for (size_t i = 0; i < m->n_objects; i++)
		if (m->objects[i]->dev == st.st_dev && m->objects[i]->ino == st.st_ino &&
		    /* Their inode numbers are their ids, and may be another file's too. */
		    (m->objects[i]->kind == FERRY__OBJECT_KIND__OBJECT_SYSV) ==
			    (kind == FERRY__OBJECT_KIND__OBJECT_SYSV)) {
			*ret_id = m->objects[i]->id;
			return 0;
		}
	uint64_t huge_page_size;
	int r = hugetlb_page_size(fd, &huge_page_size, e);

	if (r < 0)
		return error_prefix(e, "shared memory object %s", name);
	/* Huge pages are memory, whatever file they belong to. */
	if (kind == FERRY__OBJECT_KIND__OBJECT_GHOST && !huge_page_size && c->options &&
	    (uint64_t)st.st_size > c->options->ghost_limit)
		return error_say(e, EFBIG,
				 "deleted file %s is %lld bytes, more than the limit of %llu (--ghost-limit)",
				 name, (long long)st.st_size, (unsigned long long)c->options->ghost_limit);
	/* An open file description of our own: the caller's may be shared with the target (offset). */
	cleanup_free char *path = xasprintf("/proc/self/fd/%d", fd);
	cleanup_close int own = open(path, O_RDONLY | O_CLOEXEC);

	if (own < 0)
		return error_set(e, errno, "open shared memory object %s", name);
	struct memory_object *o = xcalloc(1, sizeof(*o));

	o->huge_page_size = huge_page_size;
	o->id = m->next_id++;
	o->kind = kind;
	o->dev = st.st_dev;
	o->ino = st.st_ino;
	o->size = st.st_size;
	o->mode = st.st_mode & 07777;
	o->uid = st.st_uid;
	o->gid = st.st_gid;
	o->name = xstrdup(name);
	int seals = fcntl(own, F_GET_SEALS);

	o->seals = seals > 0 ? seals : 0;
	o->fd = TAKE_FD(own);
	m->objects = xrealloc(m->objects, (m->n_objects + 1) * sizeof(*m->objects));
	m->objects[m->n_objects++] = o;
	*ret_id = o->id;
	return 0;
}

static uint64_t huge_bytes(const struct memory_object *o)
{
	struct stat st;

	return o->huge_page_size && fstat(o->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

Ferry__Objects *memory_objects_message(const struct memory *m)
{
	Ferry__Objects *os = xmalloc(sizeof(*os));

	ferry__objects__init(os);
	os->n_objects = m->n_objects;
	os->objects = xcalloc(m->n_objects, sizeof(*os->objects));
	for (size_t i = 0; i < m->n_objects; i++) {
		struct memory_object *o = m->objects[i];
		Ferry__Object *x = os->objects[i] = xmalloc(sizeof(*x));

		ferry__object__init(x);
		x->id = o->id;
		x->kind = o->kind;
		x->size = o->size;
		x->huge_page_size = o->huge_page_size;
		x->huge_bytes = huge_bytes(o);
		x->name = xstrdup(o->name);
		x->seals = o->seals;
		x->mode = o->mode;
		x->dev = o->dev;
		x->ino = o->ino;
		x->uid = o->uid;
		x->gid = o->gid;
		if (o->sysv) {
			sysv_refresh(o);
			x->sysv = xmemdup(o->sysv, sizeof(*o->sysv));
		}
		if (o->file) {
			x->file = xmemdup(o->file, sizeof(*o->file));
			x->file->boot_id = xstrdup(o->file->boot_id);
			x->file->outside = xstrdup(o->file->outside);
		}
	}
	return os;
}

/* Shared anonymous memory without a process that maps it yet: map it here, keep a descriptor of it through
 * map_files, unmap.  It shows as /dev/zero (deleted) wherever it is mapped, like the original. */
static int create_shmem(const Ferry__Object *o, int *ret_fd, struct error *e)
{
	size_t size = PAGE_ROUND_UP(o->size);
	int huge = o->huge_page_size ? MAP_HUGETLB | HUGETLB_2MB : 0;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | huge,
		       -1, 0);

	if (p == MAP_FAILED)
		return error_set(e, errno, "make shared memory of %zu bytes%s", size,
				 huge ? " in huge pages" : "");
	cleanup_free char *path =
		xasprintf("/proc/self/map_files/%lx-%lx", (unsigned long)p, (unsigned long)p + size);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int err = errno;

	munmap(p, size);
	if (fd < 0)
		return error_set(e, err, "open %s", path);
	*ret_fd = fd;
	return 0;
}

static int create_ghost(const Ferry__Object *o, int *ret_fd, struct error *e)
{
	cleanup_free char *name = xstrdup(o->name);
	size_t n = strlen(name);

	if (n > 10 && !strcmp(name + n - 10, " (deleted)"))
		name[n - 10] = 0;
	cleanup_close int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, o->mode);

	if (fd < 0 && errno == EEXIST) {
		/* Another file has that name now: ours only needs to be unlinked again. */
		char *other = xasprintf("%s.ferry-%llu", name, (unsigned long long)o->id);

		free(name);
		name = other;
		fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, o->mode);
	}
	if (fd < 0)
		return error_set(e, errno, "make deleted file %s anew", name);
	if (unlink(name) < 0)
		return error_set(e, errno, "unlink %s", name);
	if (fchown(fd, o->uid, o->gid) < 0 || fchmod(fd, o->mode) < 0 || ftruncate(fd, o->size) < 0)
		return error_set(e, errno, "set owner, mode and size of deleted file %s", name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Without F_SEAL_SEAL in the end the file must allow sealing; one made without shows exactly F_SEAL_SEAL.
 * Since Linux 6.3 whether it may be executed must be said, or a sysctl decides. */
static int create_memfd(const Ferry__Object *o, int *ret_fd, struct error *e)
{
	unsigned flags =
		MFD_CLOEXEC | MFD_ALLOW_SEALING | (o->huge_page_size ? MFD_HUGETLB | HUGETLB_2MB : 0);
	cleanup_close int fd = memfd_create(o->name, flags | MFD_EXEC_);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(o->name, flags);
	if (fd < 0)
		return error_set(e, errno, "make memfd %s%s", o->name,
				 o->huge_page_size ? " of huge pages" : "");
	if (ftruncate(fd, o->size) < 0 || fchown(fd, o->uid, o->gid) < 0 || fchmod(fd, o->mode) < 0)
		return error_set(e, errno, "set size %llu, owner and mode of memfd %s",
				 (unsigned long long)o->size, o->name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int object_create(const Ferry__Object *o, int *ret_fd, struct error *e)
{
	if (o->kind == FERRY__OBJECT_KIND__OBJECT_SHMEM)
		return create_shmem(o, ret_fd, e);
	if (o->kind == FERRY__OBJECT_KIND__OBJECT_GHOST)
		return create_ghost(o, ret_fd, e);
	if (o->kind == FERRY__OBJECT_KIND__OBJECT_SYSV)
		return sysv_create(o, ret_fd, e);
	if (o->kind == FERRY__OBJECT_KIND__OBJECT_TMPFS)
		return tmpfs_create(o, ret_fd, e);
	return create_memfd(o, ret_fd, e);
}

/* hugetlbfs has no write(2). */
static int write_mapped(int fd, const void *data, uint64_t length, uint64_t offset)
{
	uint64_t first = offset & ~(HUGE_PAGE_BYTES - 1);
	uint64_t end = (offset + length + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
	char *p = mmap(NULL, end - first, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)first);

	if (p == MAP_FAILED)
		return -errno;
	memcpy(p + (offset - first), data, length);
	munmap(p, end - first);
	return 0;
}

int object_write(int fd, bool huge, const void *data, uint64_t length, uint64_t offset)
{
	if (data)
		return huge ? write_mapped(fd, data, length, offset)
			    : pwrite_full(fd, data, length, (off_t)offset);
	int r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);

	return r < 0 ? -errno : 0;
}

int object_finish(const Ferry__Object *o, int fd, struct error *e)
{
	if (o->kind == FERRY__OBJECT_KIND__OBJECT_TMPFS)
		return tmpfs_finish(o, fd, e);
	/* Pages were written whole: the size may end inside the last one. */
	if (o->kind != FERRY__OBJECT_KIND__OBJECT_SHMEM && ftruncate(fd, o->size) < 0)
		return error_set(e, errno, "set size %llu of %s", (unsigned long long)o->size, o->name);
	if (o->kind == FERRY__OBJECT_KIND__OBJECT_SYSV)
		return sysv_finish(o, e);
	if (o->kind != FERRY__OBJECT_KIND__OBJECT_MEMFD)
		return 0;
	if (fcntl(fd, F_ADD_SEALS, o->seals) < 0)
		return error_set(e, errno, "seal memfd %s with 0x%x", o->name, o->seals);
	return 0;
}

void object_discard(const Ferry__Object *o, int fd)
{
	if (o->kind == FERRY__OBJECT_KIND__OBJECT_SYSV)
		sysv_discard(o);
	else if (o->kind == FERRY__OBJECT_KIND__OBJECT_TMPFS)
		tmpfs_discard(o, fd);
}

/* Names and ids that live apart from the tree: free here, or the very same?  What was made since belongs to
 * us. */
static int objects_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m,
			 struct error *e)
{
	const Ferry__Objects *os = (const Ferry__Objects *)m;
	int x = 0;

	(void)pid, (void)tid;
	for (size_t i = 0; i < os->n_objects && x >= 0; i++) {
		const Ferry__Object *o = os->objects[i];

		if (r->object_fd && r->object_fd(r, o->id) >= 0)
			continue;
		if (o->kind == FERRY__OBJECT_KIND__OBJECT_SYSV)
			x = sysv_check(o, e);
		else if (o->kind == FERRY__OBJECT_KIND__OBJECT_TMPFS)
			x = tmpfs_check(o, e);
	}
	return x;
}

/* Put by the engine when all descriptors and mappings are known; made as it comes in. */
const struct state_kind kind_objects = {
	.name = "memory/objects",
	.type = FERRY__RECORD_TYPE__RECORD_OBJECTS,
	.scope = KIND_TREE,
	.descriptor = &ferry__objects__descriptor,
	.check = objects_check,
};
