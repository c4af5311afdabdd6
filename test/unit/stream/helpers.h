/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A scratch directory per test, and streams to put into it and to get out of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "proto/image.pb-c.h"
#include "stream/image_files.h"
#include "stream/stream.h"

#define P PAGE_SIZE_BYTES

#define assert_ok(rc, e)                                              \
	do {                                                          \
		int rc_ = (rc);                                       \
		if (rc_ < 0)                                          \
			fail_msg("%s: %s (%d)", #rc, (e)->text, rc_); \
	} while (0)
#define assert_error(rc, e, code_, part)                                 \
	do {                                                             \
		int rc_ = (rc);                                          \
		if (rc_ != -(code_) || !strstr((e)->text, part))         \
			fail_msg("%s: %d, \"%s\"", #rc, rc_, (e)->text); \
	} while (0)

static char scratch[64];

static inline int scratch_setup(void **state)
{
	(void)state;
	strcpy(scratch, "/tmp/ferry-stream-XXXXXX");
	return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int scratch_teardown(void **state)
{
	(void)state;
	return nftw(scratch, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* Directory of that name in the scratch directory, made if need be. */
static inline int scratch_dir(const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", scratch, name);

	mkdir(path, 0700);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static inline unsigned count_files(int dirfd)
{
	cleanup_closedir DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY));
	unsigned n = 0;

	for (struct dirent *de; (de = readdir(d));)
		n += de->d_name[0] != '.';
	return n;
}

static inline void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed * 31 + i / 4096 * 7 + i * 3);
}

static inline int put_inventory(struct stream_out *s, const char *host, struct error *e)
{
	Ferry__Inventory m = FERRY__INVENTORY__INIT;

	m.version = 1;
	m.host = (char *)host;
	return stream_put(s, FERRY__RECORD_TYPE__RECORD_INVENTORY, 0, 0, 0, &m.base, e);
}

static inline int put_run(struct stream_out *s, uint32_t space, uint32_t flags, uint64_t id, uint64_t addr,
			  uint64_t length, const void *data, struct error *e)
{
	return stream_put_pages(
		s,
		&(struct page_run){.space = space, .flags = flags, .id = id, .addr = addr, .length = length},
		data, e);
}

/* A run of pages of process @id, filled with @seed. */
static inline int put_filled(struct stream_out *s, uint64_t id, uint64_t addr, uint64_t length, unsigned seed,
			     struct error *e)
{
	cleanup_free uint8_t *data = xmalloc(length);

	fill(data, length, seed);
	return put_run(s, SPACE_PROCESS, 0, id, addr, length, data, e);
}

/* What a reader's memory holds after a stream: 64 pages of each of 4 processes from address 0x10000 on.
 * Unwritten: 0xee. */
struct memory {
	uint8_t page[4][64 * 4096];
	bool has[4][64];
	unsigned runs, states;
	char host[64];
};

static inline void memory_apply(struct memory *m, const struct record *r)
{
	const struct page_run *p = &r->run;

	assert_int_equal(p->space, SPACE_PROCESS);
	assert_in_range(p->id, 0, 3);
	m->runs++;
	for (uint64_t i = 0; i < p->length / P; i++) {
		uint64_t n = (p->addr - 0x10000) / P + i;

		if (n >= 64)
			continue;
		m->has[p->id][n] = !(p->flags & PAGE_RUN_DROP);
		if (p->flags & PAGE_RUN_DROP)
			memset(m->page[p->id] + n * P, 0xee, P);
		else if (p->flags & PAGE_RUN_ZERO)
			memset(m->page[p->id] + n * P, 0, P);
		else
			memcpy(m->page[p->id] + n * P, (const uint8_t *)r->data + i * P, P);
	}
}

static inline int memory_read(struct memory *m, struct stream_in *in, struct error *e)
{
	struct record r;
	int rc;

	memset(m, 0, sizeof(*m));
	memset(m->page, 0xee, sizeof(m->page));
	while ((rc = stream_get(in, &r, e)) > 0) {
		if (r.is_pages) {
			memory_apply(m, &r);
			continue;
		}
		m->states++;
		if (r.type == FERRY__RECORD_TYPE__RECORD_INVENTORY) {
			ProtobufCMessage *msg;

			rc = record_unpack(&r, &ferry__inventory__descriptor, &msg, e);
			if (rc < 0)
				return rc;
			snprintf(m->host, sizeof(m->host), "%s", ((Ferry__Inventory *)msg)->host);
			protobuf_c_message_free_unpacked(msg, NULL);
		}
	}
	return rc;
}
