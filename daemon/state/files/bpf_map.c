/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps: arrays and hashes, with what is in them.  A map is made again by its first description, others of
 * it are opened by the number that it has here.  Programs are not: they may be attached anywhere in the
 * kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "state/files/files.h"

#define MAX_BYTES (32u << 20) /* of keys and values */
/* Flags that say how the map is made, and nothing of a program or of other memory. */
#define KEPT_FLAGS \
	(BPF_F_NO_PREALLOC | BPF_F_ZERO_SEED | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG | BPF_F_MMAPABLE)

static int bpf(int cmd, union bpf_attr *a)
{
	return (int)syscall(SYS_bpf, cmd, a, sizeof(*a));
}

static int map_info(int fd, struct bpf_map_info *ret)
{
	union bpf_attr a = {
		.info = {.bpf_fd = (uint32_t)fd, .info_len = sizeof(*ret), .info = (uintptr_t)ret}};

	memset(ret, 0, sizeof(*ret));
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &a);
}

static size_t padded(uint32_t value_size)
{
	return ((size_t)value_size + 7) & ~(size_t)7;
}

static bool bpf_map_match(const struct fd_facts *f)
{
	return !strcmp(f->link, "anon_inode:bpf-map");
}

/* --- source --------------------------------------------------------------------------------------------- */

static int refuse(const struct fd_facts *f, const struct bpf_map_info *i, struct error *e)
{
	if (i->type != BPF_MAP_TYPE_ARRAY && i->type != BPF_MAP_TYPE_HASH)
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: BPF map \"%.16s\" is of type %u, which is not supported (arrays and "
			"hashes are)",
			f->pid, f->fd, i->name, i->type);
	if (i->map_flags & ~KEPT_FLAGS)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: BPF map \"%.16s\" has flags 0x%x, which are not supported",
				 f->pid, f->fd, i->name, i->map_flags & ~KEPT_FLAGS);
	if (i->btf_id)
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: BPF map \"%.16s\" has types (BTF), which cannot be made again", f->pid,
			f->fd, i->name);
	if ((uint64_t)i->max_entries * (i->key_size + padded(i->value_size)) > MAX_BYTES)
		return error_say(e, ENOTSUP, "pid %d fd %d: BPF map \"%.16s\" has room for more than %u MiB",
				 f->pid, f->fd, i->name, MAX_BYTES >> 20);
	return 0;
}

/* Nothing removes an entry meanwhile but a program in the kernel; then the walk begins anew, and would not
 * end. */
static int take_content(const struct fd_facts *f, Ferry__BpfMap *m, struct error *e)
{
	size_t value = padded(m->value_size), n = 0;
	uint8_t *key = NULL;

	m->keys.data = xmalloc((size_t)m->max_entries * m->key_size);
	m->values.data = xcalloc(m->max_entries, value);
	for (; n < m->max_entries; n++) {
		uint8_t *next = m->keys.data + n * m->key_size;
		union bpf_attr step = {
			.map_fd = (uint32_t)f->copy, .key = (uintptr_t)key, .next_key = (uintptr_t)next};

		if (bpf(BPF_MAP_GET_NEXT_KEY, &step) < 0) {
			if (errno == ENOENT)
				break;
			return error_set(e, errno, "pid %d fd %d: walking through its BPF map", f->pid,
					 f->fd);
		}
		union bpf_attr look = {.map_fd = (uint32_t)f->copy,
				       .key = (uintptr_t)next,
				       .value = (uintptr_t)m->values.data + n * value};

		if (bpf(BPF_MAP_LOOKUP_ELEM, &look) < 0)
			return error_set(e, errno, "pid %d fd %d: reading its BPF map", f->pid, f->fd);
		key = next;
	}
	m->keys.len = n * m->key_size;
	m->values.len = n * value;
	return 0;
}

static int bpf_map_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	struct bpf_map_info i;

	if (map_info(f->copy, &i) < 0)
		return error_set(e, errno, "pid %d fd %d: asking about its BPF map", f->pid, f->fd);
	int r = refuse(f, &i, e);

	if (r < 0)
		return r;
	uint32_t *slot = index_map_at(&files_capture_of(c)->bpf_maps, i.id, 0);
	Ferry__BpfMap *b = m->bpf_map = xmalloc(sizeof(*b));
	const char *info = fd_facts_info(f, e), *frozen = info ? strstr(info, "frozen:") : NULL;

	ferry__bpf_map__init(b);
	if (!info)
		return -e->code;
	if (!*slot)
		*slot = (uint32_t)f->id;
	b->first = *slot;
	b->type = i.type;
	b->key_size = i.key_size;
	b->value_size = i.value_size;
	b->max_entries = i.max_entries;
	b->flags = i.map_flags;
	b->name = xasprintf("%.16s", i.name);
	b->frozen = frozen && strtoul(frozen + 7, NULL, 10);
	if (b->first != f->id || !f->frozen)
		return 0;
	/* A descriptor for writing only cannot read, but one that is opened by number can. */
	if ((f->flags & O_ACCMODE) != O_WRONLY)
		return take_content(f, b, e);
	union bpf_attr open = {.map_id = i.id};
	struct fd_facts other = *f;
	cleanup_close int fd = bpf(BPF_MAP_GET_FD_BY_ID, &open);

	other.copy = fd;
	return fd < 0 ? error_set(e, errno, "pid %d fd %d: opening its BPF map for reading", f->pid, f->fd)
		      : take_content(&other, b, e);
}

/* --- destination ---------------------------------------------------------------------------------------- */

static int make(const FileDescription *m, struct error *e)
{
	const Ferry__BpfMap *b = m->bpf_map;
	union bpf_attr a = {.map_type = b->type,
			    .key_size = b->key_size,
			    .value_size = b->value_size,
			    .max_entries = b->max_entries,
			    .map_flags = b->flags};

	memcpy(a.map_name, b->name, MIN(strlen(b->name), sizeof(a.map_name) - 1));
	int fd = bpf(BPF_MAP_CREATE, &a);

	return fd < 0 ? error_set(e, errno, "pid %d fd %d: making BPF map \"%s\"", m->pid, m->fd, b->name)
		      : fd;
}

static int fill(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__BpfMap *b = m->bpf_map;
	size_t value = padded(b->value_size), n = b->key_size ? b->keys.len / b->key_size : 0;

	if (n * value != b->values.len || n > b->max_entries)
		return error_say(e, EPROTO, "pid %d fd %d: the image has a BPF map that does not fit itself",
				 m->pid, m->fd);
	for (size_t i = 0; i < n; i++) {
		union bpf_attr a = {.map_fd = (uint32_t)fd,
				    .key = (uintptr_t)b->keys.data + i * b->key_size,
				    .value = (uintptr_t)b->values.data + i * value};

		if (bpf(BPF_MAP_UPDATE_ELEM, &a) < 0)
			return error_set(e, errno, "pid %d fd %d: filling BPF map \"%s\"", m->pid, m->fd,
					 b->name);
	}
	union bpf_attr a = {.map_fd = (uint32_t)fd};

	if (b->frozen && bpf(BPF_MAP_FREEZE, &a) < 0)
		return error_set(e, errno, "pid %d fd %d: freezing BPF map \"%s\"", m->pid, m->fd, b->name);
	return 0;
}

/* Another description of the map behind @fd. */
static int open_again(int fd, const FileDescription *m, struct error *e)
{
	int access = m->flags & O_ACCMODE;
	struct bpf_map_info i;
	union bpf_attr a = {.open_flags = access == O_RDONLY   ? BPF_F_RDONLY
					  : access == O_WRONLY ? BPF_F_WRONLY
							       : 0};

	if (map_info(fd, &i) < 0)
		return error_set(e, errno, "pid %d fd %d: asking about its BPF map", m->pid, m->fd);
	a.map_id = i.id;
	int again = bpf(BPF_MAP_GET_FD_BY_ID, &a);

	return again < 0 ? error_set(e, errno, "pid %d fd %d: opening its BPF map again", m->pid, m->fd)
			 : again;
}

static int bpf_map_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	(void)r;
	if (!m->bpf_map)
		return error_say(e, EPROTO, "the image says nothing of BPF map %llu",
				 (unsigned long long)m->id);
	cleanup_close int fd = make(m, e);

	return MIN(fd, 0);
}

static int bpf_map_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	if (!m->bpf_map)
		return error_say(e, EPROTO, "the image says nothing of BPF map %llu",
				 (unsigned long long)m->id);
	bool first = m->bpf_map->first == m->id;
	cleanup_close int own = first ? make(m, e) : -1;
	int from = first ? own : files_host_fd(r, m->bpf_map->first);

	if (first && own < 0)
		return own;
	if (from < 0)
		return error_say(e, EPROTO,
				 "pid %d fd %d: the image has no open file %llu, of the same BPF map", m->pid,
				 m->fd, (unsigned long long)m->bpf_map->first);
	int x = first ? fill(own, m, e) : 0;

	if (x < 0)
		return x;
	if (first && (m->flags & O_ACCMODE) == O_RDWR) {
		*ret_fd = TAKE_FD(own);
		return 0;
	}
	*ret_fd = open_again(from, m, e);
	return MIN(*ret_fd, 0);
}

const struct fd_type fd_bpf_map = {
	.name = "BPF map",
	.kind = FILE_KIND(BPF_MAP),
	.match = bpf_map_match,
	.capture = bpf_map_capture,
	.check = bpf_map_check,
	.open = bpf_map_open,
};
