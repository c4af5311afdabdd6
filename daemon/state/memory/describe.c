/* SPDX-License-Identifier: Apache-2.0 */
/* One VMA: what is mapped there decides how it can be made again, and whether. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/memory/memory.h"
#include "state/memory/named.h"

static const struct {
	uint64_t proc;
	uint64_t flag;
} flag_map[] = {
	{PROC_VM_GROWSDOWN, FERRY__VMA_FLAG__VMA_GROWSDOWN},
	{PROC_VM_LOCKED, FERRY__VMA_FLAG__VMA_LOCKED},
	{PROC_VM_LOCKFAULT, FERRY__VMA_FLAG__VMA_LOCKONFAULT},
	{PROC_VM_NORESERVE, FERRY__VMA_FLAG__VMA_NORESERVE},
	{PROC_VM_DONTCOPY, FERRY__VMA_FLAG__VMA_DONTFORK},
	{PROC_VM_DONTDUMP, FERRY__VMA_FLAG__VMA_DONTDUMP},
	{PROC_VM_WIPEONFORK, FERRY__VMA_FLAG__VMA_WIPEONFORK},
	{PROC_VM_HUGEPAGE, FERRY__VMA_FLAG__VMA_HUGEPAGE},
	{PROC_VM_NOHUGEPAGE, FERRY__VMA_FLAG__VMA_NOHUGEPAGE},
	{PROC_VM_SEQREAD, FERRY__VMA_FLAG__VMA_SEQ_READ},
	{PROC_VM_RANDREAD, FERRY__VMA_FLAG__VMA_RAND_READ},
	{PROC_VM_MERGEABLE, FERRY__VMA_FLAG__VMA_MERGEABLE},
	{PROC_VM_HUGETLB, FERRY__VMA_FLAG__VMA_HUGETLB},
	{PROC_VM_ACCOUNT, FERRY__VMA_FLAG__VMA_ACCOUNT},
	{PROC_VM_GUARD, FERRY__VMA_FLAG__VMA_GUARD},
	{PROC_VM_UFFD_MISSING, FERRY__VMA_FLAG__VMA_UFFD_MISSING},
	{PROC_VM_UFFD_WP, FERRY__VMA_FLAG__VMA_UFFD_WP},
	{PROC_VM_UFFD_MINOR, FERRY__VMA_FLAG__VMA_UFFD_MINOR},
	{PROC_VM_DROPPABLE, FERRY__VMA_FLAG__VMA_DROPPABLE},
};

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && !strcmp(s + n - k, end);
}

static int refuse(pid_t pid, const struct proc_vma *v, const char *what, struct error *e)
{
	return error_say(e, ENOTSUP, "pid %d: mapping 0x%llx-0x%llx%s%s: %s", pid,
			 (unsigned long long)v->start, (unsigned long long)v->end, *v->path ? " of " : "",
			 v->path, what);
}

static int describe_hugetlb(pid_t pid, const struct proc_vma *v, const char *link, Ferry__Vma *out,
			    struct error *e)
{
	cleanup_close int fd = open(link, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "pid %d: open the huge pages mapped at 0x%llx (%s)", pid,
				 (unsigned long long)v->start, v->path);
	int r = hugetlb_page_size(fd, &out->huge_page_size, e);

	return r < 0 ? error_prefix(e, "pid %d: mapping 0x%llx-0x%llx", pid, (unsigned long long)v->start,
				    (unsigned long long)v->end)
		     : 0;
}

static int describe_segment(struct capture *c, pid_t pid, const struct proc_vma *v, const char *link,
			    Ferry__Vma *out, struct error *e)
{
	if (v->vmflags & PROC_VM_HUGETLB)
		return refuse(pid, v, "System V shared memory in huge pages (SHM_HUGETLB) cannot be moved",
			      e);
	cleanup_close int fd = open(link, O_RDONLY | O_CLOEXEC);
	cleanup_free char *name = xstrdup(v->path);

	if (fd < 0)
		return error_set(e, errno, "pid %d: open the memory attached at 0x%llx (%s)", pid,
				 (unsigned long long)v->start, v->path);
	if (ends_with(name, " (deleted)"))
		name[strlen(name) - 10] = 0;
	out->kind = FERRY__VMA_KIND__VMA_OBJECT;
	int r = memory_object_of_fd(c, fd, FERRY__OBJECT_KIND__OBJECT_SYSV, name, &out->object, e);
	struct memory_object *o = r < 0 ? NULL : memory_object(c->memory, out->object);

	if (r >= 0)
		r = sysv_note(o, (int)v->ino, e);
	if (r < 0)
		return error_prefix(e, "pid %d: mapping 0x%llx", pid, (unsigned long long)v->start);
	out->sysv_id = o->sysv->id;
	out->sysv_size = o->size;
	return 0;
}

/* What is mapped there, for questions (O_PATH). By now that may be another file than when @v was read:
 * -ENOENT then, as if nothing was there. */
static int open_mapped(pid_t pid, const struct proc_vma *v, struct error *e)
{
	cleanup_free char *link = xasprintf("/proc/%d/map_files/%llx-%llx", pid, (unsigned long long)v->start,
					    (unsigned long long)v->end),
			  *name = NULL;
	cleanup_close int fd = open(link, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "pid %d: open the file mapped at 0x%llx (%s)", pid,
				 (unsigned long long)v->start, v->path);
	cleanup_free char *own = xasprintf("/proc/self/fd/%d", fd);
	int r = readlink_at(AT_FDCWD, own, &name);

	if (r < 0)
		return error_set(e, -r, "name of the file that pid %d has mapped at 0x%llx", pid,
				 (unsigned long long)v->start);
	if (*v->path == '/' && strcmp(name, v->path) != 0)
		return error_set(e, ENOENT, "pid %d: at 0x%llx %s is mapped, no longer %s", pid,
				 (unsigned long long)v->start, name, v->path);
	return TAKE_FD(fd);
}

static void note_file(Ferry__Vma *v, const struct stat *st)
{
	v->file_size = st->st_size;
	v->file_mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* A file-like mapping: what is behind it decides the kind. */
static int describe_file(struct capture *c, pid_t pid, const struct proc_vma *v, Ferry__Vma *out,
			 struct error *e)
{
	cleanup_close int mapped = open_mapped(pid, v, e);
	struct stat st, now;

	if (mapped < 0)
		return mapped;
	cleanup_free char *link = xasprintf("/proc/self/fd/%d", mapped);

	if (fstat(mapped, &st) < 0)
		return error_set(e, errno, "pid %d: stat of the file mapped at 0x%llx (%s)", pid,
				 (unsigned long long)v->start, v->path);
	if (!strncmp(v->path, "/SYSV", 5) && st.st_nlink == 0 && st.st_ino == v->ino && v->shared)
		return describe_segment(c, pid, v, link, out, e);
	/* Anonymous huge pages (MAP_HUGETLB) are a nameless file of their own. */
	bool huge = v->vmflags & PROC_VM_HUGETLB;
	bool anon_huge = huge && !strcmp(v->path, "/anon_hugepage (deleted)");

	if (huge) {
		int r = describe_hugetlb(pid, v, link, out, e);

		if (r < 0)
			return r;
	}
	bool shmem = anon_huge || (v->shared && !strcmp(v->path, "/dev/zero (deleted)"));
	/* "[anon_shmem:NAME]" is shared anonymous memory that was given a name. */
	shmem |= !strncmp(v->path, "[anon_shmem:", 12);
	bool memfd = !strncmp(v->path, "/memfd:", 7);
	bool deleted = !shmem && !memfd && st.st_nlink == 0;

	if (!shmem && !memfd && !deleted && (stat(v->path, &now) < 0 || now.st_ino != st.st_ino)) {
		/* The name in maps is not where the file is any more, although it still has a name somewhere.
		 */
		if (ends_with(v->path, " (deleted)"))
			deleted = true;
		else
			return refuse(pid, v, "the mapped file cannot be found under its name", e);
	}
	/* A private mapping of /dev/zero is anonymous memory that shows a name. */
	bool zero = S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 5) && !v->shared;

	if (!S_ISREG(st.st_mode) && !shmem && !zero)
		return refuse(pid, v, "device or special file mappings cannot be moved", e);
	bool travels =
		v->shared && S_ISREG(st.st_mode) && !shmem && !memfd && !deleted && tmpfs_travels(link);

	if (shmem || memfd || deleted || travels) {
		cleanup_close int fd = open(link, O_RDONLY | O_CLOEXEC);
		cleanup_free char *name = xstrdup(memfd ? v->path + 7 : v->path);

		if (fd < 0)
			return error_set(e, errno, "pid %d: open the memory mapped at 0x%llx (%s)", pid,
					 (unsigned long long)v->start, v->path);
		if (memfd && ends_with(name, " (deleted)"))
			name[strlen(name) - 10] = 0;
		out->kind = FERRY__VMA_KIND__VMA_OBJECT;
		if (!strncmp(v->path, "[anon_shmem:", 12)) {
			free(out->path);
			out->path = xstrdup(v->path);
		}
		int r = memory_object_of_fd(c, fd,
					    shmem     ? FERRY__OBJECT_KIND__OBJECT_SHMEM
					    : memfd   ? FERRY__OBJECT_KIND__OBJECT_MEMFD
					    : travels ? FERRY__OBJECT_KIND__OBJECT_TMPFS
						      : FERRY__OBJECT_KIND__OBJECT_GHOST,
					    name, &out->object, e);

		return r < 0 || !travels ? r : tmpfs_note(c, memory_object(c->memory, out->object), e);
	}
	out->kind = FERRY__VMA_KIND__VMA_FILE;
	free(out->path);
	out->path = xstrdup(v->path);
	note_file(out, &st);
	return 0;
}

void vma_look_at_file(pid_t pid, const struct proc_vma *v, Ferry__Vma *out, const Ferry__Vma *last)
{
	cleanup_free char *link = NULL;
	struct stat st;

	if (out->kind != FERRY__VMA_KIND__VMA_FILE)
		return;
	/* Mappings of a file lie together. */
	if (last && last->kind == FERRY__VMA_KIND__VMA_FILE && !strcmp(last->path, out->path)) {
		out->file_size = last->file_size;
		out->file_mtime_ns = last->file_mtime_ns;
		return;
	}
	if (stat(v->path, &st) < 0 || st.st_ino != v->ino) {
		link = xasprintf("/proc/%d/map_files/%llx-%llx", pid, (unsigned long long)v->start,
				 (unsigned long long)v->end);
		if (stat(link, &st) < 0 || st.st_ino != v->ino)
			return; /* unmapped by now: the next look has it */
	}
	note_file(out, &st);
}

/* Every io_uring has an inode of its own. */
static int describe_ring(pid_t pid, const struct proc_vma *v, Ferry__Vma *out, struct error *e)
{
	if (!v->shared)
		return refuse(pid, v, "a private mapping of the rings of an io_uring cannot be made again",
			      e);
	if (v->offset != IORING_OFF_SQ_RING && v->offset != IORING_OFF_CQ_RING &&
	    v->offset != IORING_OFF_SQES)
		return refuse(pid, v, "buffers that an io_uring's kernel side provides cannot be moved", e);
	out->kind = FERRY__VMA_KIND__VMA_RING;
	out->ring = v->ino;
	return 0;
}

static void describe_aio(const struct proc_vma *v, Ferry__Vma *out)
{
	out->kind = FERRY__VMA_KIND__VMA_AIO;
	out->ring = v->ino;
}

int vma_describe(struct capture *c, pid_t pid, const struct proc_vma *v, Ferry__Vma **ret, struct error *e)
{
	Ferry__Vma *out = xmalloc(sizeof(*out));
	int r = 0;

	ferry__vma__init(out);
	out->start = v->start;
	out->end = v->end;
	out->prot = v->prot;
	out->shared = v->shared;
	out->offset = v->offset;
	out->path = xstrdup("");
	for (size_t i = 0; i < ARRAY_SIZE(flag_map); i++)
		if (v->vmflags & flag_map[i].proc)
			out->flags |= flag_map[i].flag;
	out->file_writable = v->vmflags & PROC_VM_MAYWRITE;
	out->pkey = v->pkey;
	if (!strcmp(v->path, "[vdso]"))
		out->kind = FERRY__VMA_KIND__VMA_VDSO;
	else if (!strcmp(v->path, "[vvar]"))
		out->kind = FERRY__VMA_KIND__VMA_VVAR;
	else if (!strcmp(v->path, "[vvar_vclock]"))
		out->kind = FERRY__VMA_KIND__VMA_VVAR_VCLOCK;
	else if (!strcmp(v->path, "anon_inode:[io_uring]"))
		r = describe_ring(pid, v, out, e);
	else if (!strncmp(v->path, "/[aio]", 6))
		describe_aio(v, out);
	else if (v->vmflags & (PROC_VM_IO | PROC_VM_PFNMAP))
		r = refuse(pid, v, "device memory cannot be moved", e);
	else if (v->vmflags & PROC_VM_SEALED)
		r = refuse(pid, v, "sealed memory (mseal) cannot be made again", e);
	else if (v->vmflags & PROC_VM_SYNC)
		r = refuse(pid, v, "a mapping with MAP_SYNC (persistent memory, DAX) cannot be moved", e);
	else if (v->ino || v->path[0] == '/' || !strncmp(v->path, "[anon_shmem:", 12) ||
		 !strncmp(v->path, "anon_inode:", 11))
		r = !strncmp(v->path, "anon_inode:", 11) || !strncmp(v->path, "/secretmem", 10)
			    ? refuse(pid, v, "mappings of this kind cannot be moved", e)
			    : describe_file(c, pid, v, out, e);
	else if (!strncmp(v->path, "[anon:", 6)) {
		free(out->path);
		out->path = xstrdup(v->path);
	}
	if (!strcmp(v->path, "[heap]"))
		out->flags |= FERRY__VMA_FLAG__VMA_HEAP;
	if (!strncmp(v->path, "[stack", 6))
		out->flags |= FERRY__VMA_FLAG__VMA_STACK;
	if (r < 0) {
		ferry__vma__free_unpacked(out, NULL);
		return r;
	}
	*ret = out;
	return 0;
}
