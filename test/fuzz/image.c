/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory with an image, and one with its parent. First byte, bit 0: put checksums and the like right
 * first. Then five parts, each two bytes of length and so many bytes: state.img, pagemap.img, pages.img of
 * the image, and the latter two of the parent, which lies beside it ("../1"). What is left belongs to the
 * last part.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "lib/repair.h"
#include "stream/image_files.h"
#include "stream/stream.h"

#define PARTS 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[] = "/dev/shm/ferry-fuzz-XXXXXX";

static const char *const names[PARTS] = {"0/" STATE_IMG, "0/" PAGEMAP_IMG, "0/" PAGES_IMG, "1/" PAGEMAP_IMG,
					 "1/" PAGES_IMG};

static void remove_all(void)
{
	for (int i = 0; i < PARTS; i++) {
		cleanup_free char *path = xasprintf("%s/%s", base, names[i]);

		unlink(path);
	}
	for (int i = 0; i < 2; i++) {
		cleanup_free char *path = xasprintf("%s/%d", base, i);

		rmdir(path);
	}
	rmdir(base);
}

static void make_dirs(void)
{
	if (!mkdtemp(base))
		abort();
	atexit(remove_all);
	for (int i = 0; i < 2; i++) {
		cleanup_free char *path = xasprintf("%s/%d", base, i);

		if (mkdir(path, 0700) < 0)
			abort();
	}
}

static void write_part(int part, const uint8_t *p, size_t n)
{
	cleanup_free char *path = xasprintf("%s/%s", base, names[part]);
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write_full(fd, p, n) < 0)
		abort();
}

static int choose(void *ctx, struct stream_in *in, struct error *e)
{
	struct stream_kin kin[] = {{.pid = 1}, {.pid = 2, .from = 1}, {.pid = 3, .from = 2}};
	struct page_set left = PAGE_SET_INIT, ret = PAGE_SET_INIT;
	int r = 0;

	if (*(const uint8_t *)ctx & 2) {
		for (size_t i = 0; i < ARRAY_SIZE(kin); i++)
			page_set_add(&kin[i].common, 0x10000, 0x7fffffff0000);
		r = stream_in_share(in, kin, ARRAY_SIZE(kin), e);
		for (size_t i = 0; i < ARRAY_SIZE(kin); i++)
			page_set_deinit(&kin[i].common);
	} else if (*(const uint8_t *)ctx & 4) {
		page_set_add(&left, 0x2000, 0x20000);
		r = stream_in_leave(in, 7, &left, &ret, e);
		for (size_t i = 0; i < ret.n; i++) /* what callers rely on */
			if (ret.r[i].start >= ret.r[i].end || ret.r[i].start < 0x2000 ||
			    ret.r[i].end > 0x20000)
				abort();
		page_set_deinit(&left);
		page_set_deinit(&ret);
	}
	return r;
}

static void read_all(int dirfd, const uint8_t *flags)
{
	struct stream_in *in = NULL;
	struct error e = ERROR_INIT;
	struct record rec;
	uint8_t page[WIRE_PAGE];
	volatile uint8_t sum = 0;

	if (*flags & 8) {
		if (stream_in_dir(&in, dirfd, &e) == 0)
			while (stream_get(in, &rec, &e) > 0)
				;
	} else if (stream_in_chain(&in, dirfd, &e) == 0 && *flags & 16) {
		for (uint64_t at = 0; at < 0x20000; at += sizeof(page))
			stream_in_read(in, 7, at, sizeof(page), page, &e);
	} else if (in) {
		stream_in_before_pages(in, choose, (void *)flags);
		while (stream_get(in, &rec, &e) > 0)
			for (size_t i = 0; rec.is_pages && rec.data && i < rec.run.length; i += 512)
				sum = (uint8_t)(sum + ((const uint8_t *)rec.data)[i]);
	}
	stream_in_free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool made;
	struct {
		uint8_t *p;
		size_t n;
	} part[PARTS] = {0};
	const uint8_t *end = data + size, *at = data + 1;

	if (!size)
		return 0;
	if (!made)
		make_dirs();
	made = true;
	for (int i = 0; i < PARTS; i++) {
		size_t left = (size_t)(end - at), n = left < 2 ? 0 : at[0] | (size_t)at[1] << 8;

		at += MIN(left, (size_t)2);
		left = (size_t)(end - at);
		part[i].n = i == PARTS - 1 ? left : MIN(n, left);
		part[i].p = xmemdup(at, part[i].n);
		at += part[i].n;
	}
	if (data[0] & 1) {
		repair(part[0].p, part[0].n, NULL, 0);
		repair(part[1].p, part[1].n, part[2].p, part[2].n);
		repair(part[3].p, part[3].n, part[4].p, part[4].n);
	}
	for (int i = 0; i < PARTS; i++) {
		write_part(i, part[i].p, part[i].n);
		free(part[i].p);
	}
	cleanup_free char *path = xasprintf("%s/0", base);
	cleanup_close int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	read_all(dirfd, data);
	return 0;
}
