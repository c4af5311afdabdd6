/* SPDX-License-Identifier: Apache-2.0 */
/* Chains, and images that are damaged in every way: each is refused with a sentence that says where. */
#include "helpers.h"

#include <sys/resource.h>

#include "stream/records.h"

static struct memory mem;

static void finish(struct stream_out *out)
{
	struct error e = ERROR_INIT;

	assert_ok(stream_finish(out, &e), &e);
	stream_out_free(out);
}

static struct stream_out *begin(int fd, const char *parent, const char *host)
{
	struct error e = ERROR_INIT;
	struct stream_out *out;

	assert_ok(stream_out_dir(&out, fd, parent, &e), &e);
	stream_out_fast(out);
	assert_ok(put_inventory(out, host, &e), &e);
	return out;
}

static void put(struct stream_out *out, uint32_t flags, uint64_t id, unsigned page, unsigned pages,
		unsigned seed)
{
	struct error e = ERROR_INIT;

	if (flags)
		assert_ok(put_run(out, 0, flags, id, 0x10000 + page * P, pages * P, NULL, &e), &e);
	else
		assert_ok(put_filled(out, id, 0x10000 + page * P, pages * P, seed, &e), &e);
}

/* Page @page of the image was put @first pages into a run filled with @seed. */
static void expect(uint64_t id, unsigned page, unsigned first, unsigned seed)
{
	uint8_t want[64 * P];

	fill(want, sizeof(want), seed);
	assert_true(mem.has[id][page]);
	assert_memory_equal(mem.page[id] + page * P, want + first * P, P);
}

/* --- chains ----------------------------------------------------------------------------------------------
 */

static void test_chain(void **state)
{
	cleanup_close int a = scratch_dir("chain1"), b = scratch_dir("chain2"), c = scratch_dir("chain3");
	struct error e = ERROR_INIT;
	struct stream_in *in;
	struct stream_out *out = begin(a, NULL, "one");

	(void)state;
	put(out, 0, 1, 0, 32, 1);
	put(out, 0, 2, 0, 8, 2);
	finish(out);
	out = begin(b, "../chain1", "two");
	put(out, 0, 1, 4, 2, 3);
	put(out, PAGE_RUN_DROP, 1, 10, 5, 0);
	put(out, PAGE_RUN_ZERO, 1, 20, 2, 0);
	finish(out);
	out = begin(c, "../chain2", "three");
	put(out, 0, 1, 5, 1, 4);
	put(out, 0, 1, 12, 1, 5);
	put(out, 0, 1, 12, 1, 6); /* again in the same image: the later one counts */
	put(out, 0, 3, 0, 1, 7);
	finish(out);

	assert_ok(stream_in_chain(&in, c, &e), &e);
	assert_string_equal(stream_in_parent(in), "../chain2");
	assert_ok(memory_read(&mem, in, &e), &e);
	stream_in_free(in);
	assert_string_equal(mem.host, "three");
	assert_int_equal(mem.states, 1);
	expect(1, 3, 3, 1);
	expect(1, 4, 0, 3);
	expect(1, 5, 0, 4);
	expect(1, 6, 6, 1);
	assert_false(mem.has[1][10]);
	assert_false(mem.has[1][11]);
	expect(1, 12, 0, 6);
	assert_false(mem.has[1][13]);
	expect(1, 15, 15, 1);
	assert_true(mem.has[1][20]);
	assert_int_equal(mem.page[1][20 * P], 0);
	expect(1, 22, 22, 1);
	expect(2, 7, 7, 2);
	expect(3, 0, 0, 7);

	/* One directory only: its own runs, each as it was put. */
	assert_ok(stream_in_dir(&in, c, &e), &e);
	assert_ok(memory_read(&mem, in, &e), &e);
	stream_in_free(in);
	assert_int_equal(mem.runs, 4);
	assert_false(mem.has[1][3]);
}

static void test_chain_broken(void **state)
{
	cleanup_close int a = scratch_dir("b1"), b = scratch_dir("b2");
	struct error e = ERROR_INIT;
	struct stream_in *in;
	struct stream_out *out;

	(void)state;
	assert_error(stream_out_dir(&out, b, "../nowhere", &e), &e, ENOENT,
		     "parent image directory ../nowhere");
	error_clear(&e);
	assert_error(stream_out_dir(&out, b, "../b1", &e), &e, ENOENT, PAGEMAP_IMG);
	error_clear(&e);
	assert_error(stream_out_dir(&out, b, "../b2", &e), &e, ELOOP, "itself");
	error_clear(&e);
	finish(begin(a, NULL, "one"));
	finish(begin(b, "../b1", "two"));
	assert_ok(stream_in_chain(&in, b, &e), &e);
	stream_in_free(in);
	/* Another dump into the parent. */
	finish(begin(a, NULL, "one again"));
	assert_error(stream_in_chain(&in, b, &e), &e, EBADMSG, "not the one this image was made on");
	error_clear(&e);
	/* A loop: each names the other. The first link has no id to compare, so forge nothing: the order of
	 * checks finds the loop. */
	finish(begin(a, "../b2", "loop"));
	assert_error(stream_in_chain(&in, a, &e), &e, ELOOP, "its own ancestor");
	error_clear(&e);
	assert_int_equal(unlinkat(b, PAGEMAP_IMG, 0), 0);
	assert_error(stream_in_chain(&in, a, &e), &e, ENOENT, "parent image ../b2: " PAGEMAP_IMG);
	error_clear(&e);
	cleanup_free char *gone = xasprintf("%s/b2", scratch), *away = xasprintf("%s/b3", scratch);

	assert_int_equal(rename(gone, away), 0);
	assert_error(stream_in_chain(&in, a, &e), &e, ENOENT, "parent image directory ../b2");
}

static void test_chain_limit(void **state)
{
	struct rlimit old, more = {4096, 4096};
	struct error e = ERROR_INIT;
	struct stream_in *in;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &old);
	more.rlim_max = MAX(old.rlim_max, more.rlim_max);
	if (setrlimit(RLIMIT_NOFILE, &more) < 0)
		skip();
	for (unsigned i = 0; i <= STREAM_MAX_CHAIN; i++) {
		cleanup_free char *name = xasprintf("limit%u", i), *parent = xasprintf("../limit%u", i - 1);
		cleanup_close int fd = scratch_dir(name);
		struct stream_out *out = begin(fd, i ? parent : NULL, name);

		put(out, 0, 1, i % 64, 1, i);
		finish(out);
		if (i != STREAM_MAX_CHAIN - 1 && i != STREAM_MAX_CHAIN)
			continue;
		int rc = stream_in_chain(&in, fd, &e);

		if (i == STREAM_MAX_CHAIN) {
			assert_error(rc, &e, ELOOP, "more than 1000 images");
			continue;
		}
		assert_ok(rc, &e);
		assert_ok(memory_read(&mem, in, &e), &e);
		assert_int_equal(mem.runs, 64);
		expect(1, i % 64, 0, i);
		stream_in_free(in);
	}
	setrlimit(RLIMIT_NOFILE, &old);
}

/* --- damage ----------------------------------------------------------------------------------------------
 */

static void make_image(int fd)
{
	struct stream_out *out = begin(fd, NULL, "whole");
	struct error e = ERROR_INIT;

	put(out, 0, 1, 0, 3, 1);
	put(out, PAGE_RUN_ZERO, 1, 9, 3, 1);
	assert_ok(stream_flush(out, &e), &e); /* two PAGES records */
	put(out, 0, 2, 0, 1, 2);
	assert_ok(put_inventory(out, "again", &e), &e);
	finish(out);
}

/* Open and read all of it. */
static int read_image(int fd, struct error *e)
{
	struct stream_in *in;
	int rc = stream_in_chain(&in, fd, e);

	if (rc < 0)
		return rc;
	rc = memory_read(&mem, in, e);
	stream_in_free(in);
	return rc;
}

static void refused(int fd, const char *file, const char *part)
{
	struct error e = ERROR_INIT;
	int rc = read_image(fd, &e);

	if (rc >= 0 || !strstr(e.text, file) || !strstr(e.text, part))
		fail_msg("%s: %d \"%s\", \"%s\" expected", file, rc, e.text, part);
}

static void accepted(int fd)
{
	struct error e = ERROR_INIT;

	assert_ok(read_image(fd, &e), &e);
}

static void write_file(int fd, const char *name, const void *p, size_t n)
{
	cleanup_close int f = openat(fd, name, O_WRONLY | O_TRUNC | O_CREAT, 0600);

	assert_true(f >= 0);
	assert_int_equal(write_full(f, p, n), 0);
}

static void test_truncated(void **state)
{
	cleanup_close int fd = scratch_dir("cut");

	(void)state;
	make_image(fd);
	accepted(fd);
	for (int i = 0; i < IMAGE_FILES; i++) {
		const char *name = image_file_name(i);
		cleanup_free char *whole = NULL;
		ssize_t n = read_file_at(fd, name, &whole);

		/* Every length, so every border of records too; pages.img is big and all alike. */
		for (ssize_t cut = 0; cut < n; cut += i == IMAGE_PAGES ? 1021 : 1) {
			write_file(fd, name, whole, cut);
			refused(fd, name, "is cut short");
		}
		cleanup_free char *longer = xcalloc(1, n + 1);

		memcpy(longer, whole, n);
		write_file(fd, name, longer, n + 1);
		refused(fd, name, i == IMAGE_PAGES ? "is too long" : "after the trailer");
		write_file(fd, name, whole, n);
	}
	accepted(fd);
}

static void test_flipped(void **state)
{
	cleanup_close int fd = scratch_dir("flip");

	(void)state;
	make_image(fd);
	for (int i = 0; i < IMAGE_FILES; i++) {
		const char *name = image_file_name(i);
		cleanup_free char *bytes = NULL;
		ssize_t n = read_file_at(fd, name, &bytes);
		cleanup_close int f = openat(fd, name, O_WRONLY);

		for (ssize_t at = 0; at < n; at += i == IMAGE_PAGES ? 97 : 1) {
			char flipped = bytes[at] ^ (1 << at % 8);

			assert_int_equal(pwrite(f, &flipped, 1, at), 1);
			refused(fd, name, "");
			assert_int_equal(pwrite(f, &bytes[at], 1, at), 1);
		}
	}
	accepted(fd);
}

/* The sentences name file, record and offset. */
static void test_flipped_texts(void **state)
{
	cleanup_close int fd = scratch_dir("texts");
	cleanup_free char *bytes = NULL;

	(void)state;
	make_image(fd);
	ssize_t n = read_file_at(fd, STATE_IMG, &bytes);

	bytes[40 + 48 + 40 + 2] ^= 4; /* payload of the second record */
	write_file(fd, STATE_IMG, bytes, n);
	refused(fd, "state.img: record 1 (INVENTORY) at byte 88: ", "checksum");
	bytes[40 + 48 + 40 + 2] ^= 4;
	bytes[4] = 7;
	write_file(fd, STATE_IMG, bytes, n);
	refused(fd, STATE_IMG, "image is of version 7, this ferry reads up to 1");
	bytes[4] = 1;
	bytes[0] = 'X';
	write_file(fd, STATE_IMG, bytes, n);
	refused(fd, STATE_IMG, "not a ferry stream");
	bytes[0] = 'F';
	bytes[88 + 4] = 2;
	write_file(fd, STATE_IMG, bytes, n);
	refused(fd, STATE_IMG, "at byte 88: corrupt (version 2)");
	bytes[88 + 4] = 1;
	memset(bytes + 88 + 24, 0xff, 4);
	write_file(fd, STATE_IMG, bytes, n);
	refused(fd, STATE_IMG, "length 4294967295, at most 67108864");
	write_file(fd, STATE_IMG, bytes, 0);
	refused(fd, STATE_IMG, "is cut short: it ends at byte 0");
	cleanup_free char *pages = NULL;

	make_image(fd);
	n = read_file_at(fd, PAGES_IMG, &pages);
	pages[3 * P] ^= 1;
	write_file(fd, PAGES_IMG, pages, n);
	refused(fd, "pages.img: page data at byte 12288", "4096 bytes for 0x10000 of process 2");
}

static void test_missing(void **state)
{
	cleanup_close int fd = scratch_dir("missing"), other = scratch_dir("other");
	cleanup_free char *bytes = NULL;

	(void)state;
	make_image(fd);
	make_image(other);
	ssize_t n = read_file_at(other, PAGEMAP_IMG, &bytes);

	write_file(fd, PAGEMAP_IMG, bytes, n);
	refused(fd, STATE_IMG, "are not of the same image");
	unlinkat(fd, PAGEMAP_IMG, 0);
	refused(fd, PAGEMAP_IMG, "No such file");
	make_image(fd);
	unlinkat(fd, PAGES_IMG, 0);
	refused(fd, PAGES_IMG, "No such file");
	unlinkat(fd, STATE_IMG, 0);
	refused(fd, STATE_IMG, "only pages are here");
	mkfifoat(fd, STATE_IMG, 0600);
	refused(fd, STATE_IMG, "not a regular file");
}

/* --- records put together by hand -------------------------------------------------------------------------
 */

struct forged {
	uint32_t type;
	uint32_t flags;
	const void *payload;
	size_t size;
	uint32_t skip_sequence;
};

/* A file of these records, all checksums right. */
static void forge(int fd, enum image_file file, const struct forged *f, size_t n)
{
	cleanup_close int out_fd = openat(fd, image_file_name(file), O_WRONLY | O_TRUNC);
	struct stream_header h;
	struct record_out out;
	struct error e = ERROR_INIT;

	assert_ok(image_read_header(fd, file == IMAGE_STATE ? IMAGE_PAGEMAP : IMAGE_STATE, &h, &e), &e);
	h.kind = file == IMAGE_STATE ? WIRE_STATE : WIRE_PAGEMAP;
	assert_ok(record_out_init(&out, out_fd, "forged", false, &e), &e);
	assert_ok(record_out_header(&out, &h, &e), &e);
	for (size_t i = 0; i < n; i++) {
		struct wire_record r = {.type = f[i].type, .flags = f[i].flags};

		out.sequence += f[i].skip_sequence;
		assert_ok(record_out_put(&out, &r, f[i].payload, f[i].size, NULL, 0, &e), &e);
	}
	assert_ok(record_out_trailer(&out, file == IMAGE_STATE ? 0 : 4 * P, &e), &e);
	assert_ok(record_out_flush(&out, &e), &e);
	record_out_deinit(&out);
}

static void test_forged_state(void **state)
{
	cleanup_close int fd = scratch_dir("forged");
	struct error e = ERROR_INIT;
	const struct {
		struct forged r;
		const char *text; /* NULL: accepted */
	} cases[] = {
		{{0x8000, 0, "x", 1, 0}, NULL},
		{{0xffffffff, 0, "x", 1, 0}, NULL},
		{{0x7fff, 0, "x", 1, 0}, "record 1 (type 32767) at byte 88: unknown type"},
		{{0, 0, "x", 1, 0}, "unknown type"},
		{{FERRY__RECORD_TYPE__RECORD_TREE, 0, NULL, 0, 0}, NULL},
		{{FERRY__RECORD_TYPE__RECORD_TREE, 0, NULL, 0, 1}, "out of order"},
		{{FERRY__RECORD_TYPE__RECORD_TREE, 1u << 16, NULL, 0, 0}, "unknown flags"},
		{{FERRY__RECORD_TYPE__RECORD_TREE, WIRE_FLAG_DATA, NULL, 0, 0}, "unknown flags"},
		{{FERRY__RECORD_TYPE__RECORD_PEER_HELLO, 0, NULL, 0, 0}, "peer protocol"},
		{{FERRY__RECORD_TYPE__RECORD_HEADER, 0, NULL, 0, 0}, "second header"},
		{{FERRY__RECORD_TYPE__RECORD_PAGES, 0, NULL, 0, 0}, "has no place"},
		{{FERRY__RECORD_TYPE__RECORD_ACK, 0, NULL, 0, 0}, "has no place"},
	};

	(void)state;
	make_image(fd);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		forge(fd, IMAGE_STATE, &cases[i].r, 1);
		if (cases[i].text) {
			refused(fd, STATE_IMG, cases[i].text);
			continue;
		}
		assert_ok(read_image(fd, &e), &e);
		assert_int_equal(mem.states, cases[i].r.type < 0x8000);
	}
}

static void test_forged_pagemap(void **state)
{
	cleanup_close int fd = scratch_dir("forgedmap");
	const struct {
		struct wire_run r;
		const char *text;
	} cases[] = {
		{{0, 0, 1, 0, P, P + 1, 0}, "has its data at"},
		{{0, 0, 1, 0, P, 4 * P, 0}, "beyond the end"},
		{{0, 0, 1, 0, P, UINT64_MAX - P + 1, 0}, "has its data at"},
		{{0, 0, 1, 0, 3 << 20, 0, 0}, "at most 2097152"},
		{{0, 0, 1, UINT64_MAX - P + 1, 2 * P, 0, 0}, "impossible length"},
		{{0, 0, 1, 0, 0, 0, 0}, "impossible length"},
		{{3, 0, 1, 0, P, 0, 0}, "unknown page space"},
		{{0, 16, 1, 0, P, 0, 0}, "unknown flags"},
		{{0, 8, 1, 0x10000, P, 0x20000, 0}, "is a copy, in an image"},
		{{0, PAGE_RUN_ZERO, 1, 0, P, P, 0}, "without data"},
		{{0, 0, 1, 0, P, 0, 0}, "checksum"},
		{{0, 0, 1, 3, P, 0, 0}, "whole pages"},
	};
	uint8_t payload[8 + 48] = {1};

	(void)state;
	make_image(fd);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memcpy(payload + 8, &cases[i].r, 48);
		forge(fd, IMAGE_PAGEMAP,
		      &(struct forged){FERRY__RECORD_TYPE__RECORD_PAGES, 0, payload, 56, 0}, 1);
		refused(fd, "", cases[i].text);
	}
	payload[0] = 2;
	forge(fd, IMAGE_PAGEMAP, &(struct forged){FERRY__RECORD_TYPE__RECORD_PAGES, 0, payload, 56, 0}, 1);
	refused(fd, PAGEMAP_IMG, "with 2 runs");
	forge(fd, IMAGE_PAGEMAP, &(struct forged){FERRY__RECORD_TYPE__RECORD_TREE, 0, NULL, 0, 0}, 1);
	refused(fd, PAGEMAP_IMG, "has no place");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain),          cmocka_unit_test(test_chain_broken),
		cmocka_unit_test(test_chain_limit),    cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_flipped),        cmocka_unit_test(test_flipped_texts),
		cmocka_unit_test(test_missing),        cmocka_unit_test(test_forged_state),
		cmocka_unit_test(test_forged_pagemap),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
