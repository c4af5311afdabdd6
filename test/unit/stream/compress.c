/* SPDX-License-Identifier: Apache-2.0 */
/* Page data that are packed on a socket come out as they went in, and nothing but that is taken. */
#include "helpers.h"

#include <pthread.h>
#include <sys/socket.h>

#include "stream/records.h"

#define PAGES 64

struct reader {
	int sock;
	struct memory m;
	struct error e;
	int rc;
};

static void *reader(void *arg)
{
	struct reader *r = arg;
	struct stream_in *in;

	r->rc = stream_in_socket(&in, r->sock, &r->e);
	if (r->rc == 0)
		r->rc = memory_read(&r->m, in, &r->e);
	stream_in_free(in);
	return NULL;
}

static void noise(uint8_t *p, size_t n)
{
	uint32_t x = 12345;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525 + 1013904223;
		p[i] = (uint8_t)(x >> 24);
	}
}

/* Text-like: gets smaller by far. */
static void words(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t) "the quick brown fox "[(i + i / 997) % 20];
}

struct trip {
	enum compress_mode mode;
	unsigned known;
	uint64_t limit;
	bool hurry;
	void (*content)(uint8_t *p, size_t n);
};

/* All pages of process 1, in two rounds, the second one over the first. */
static struct stream_flow travel(const struct trip *t)
{
	static struct reader r;
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct stream_flow flow;
	int pair[2];
	pthread_t thread;
	uint8_t *data = xmalloc(PAGES * P);

	assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), errno);
	r = (struct reader){.sock = pair[1]};
	pthread_create(&thread, NULL, reader, &r);
	assert_ok(stream_out_socket(&out, pair[0], &e), &e);
	stream_out_compress(out, t->mode, t->known, t->limit);
	if (t->hurry)
		stream_out_hurry(out);
	for (int round = 0; round < 2; round++) {
		t->content(data, PAGES * P);
		data[P * round] ^= 1;
		/* Once as a whole, once by pages with holes between them. */
		for (size_t i = 0; i < PAGES; i += round ? 2 : PAGES)
			assert_ok(put_run(out, SPACE_PROCESS, 0, 1, 0x10000 + i * P, round ? P : PAGES * P,
					  data + i * P, &e),
				  &e);
		assert_ok(stream_flush(out, &e), &e);
		stream_out_arrived(out);
	}
	assert_ok(stream_finish(out, &e), &e);
	stream_out_flow(out, &flow);
	pthread_join(thread, NULL);
	assert_ok(r.rc, &r.e);
	t->content(data, PAGES * P);
	for (size_t i = 0; i < PAGES; i++)
		assert_true(r.m.has[1][i]);
	/* Page 0 went in the second round again, page 1 did not. */
	assert_memory_equal(r.m.page[1], data, PAGES * P);
	stream_out_free(out);
	close(pair[0]);
	close(pair[1]);
	free(data);
	assert_int_equal(flow.pages, PAGES * P + PAGES / 2 * P);
	return flow;
}

#define BOTH (CODEC_BIT(CODEC_LZ4) | CODEC_BIT(CODEC_ZSTD))

static void test_trips(void **state)
{
	(void)state;
	struct stream_flow f = travel(&(struct trip){COMPRESS_LZ4, BOTH, 0, false, words});

	assert_true(f.wire < f.pages / 4);
	assert_int_equal(f.by[CODEC_LZ4], f.pages);
	f = travel(&(struct trip){COMPRESS_ZSTD, BOTH, 0, false, words});
	assert_true(f.wire < f.pages / 4);
	assert_int_equal(f.by[CODEC_ZSTD], f.pages);
	f = travel(&(struct trip){COMPRESS_NONE, BOTH, 0, false, words});
	assert_int_equal(f.wire, f.pages);
}

static void test_no_gain(void **state)
{
	(void)state;
	struct stream_flow f = travel(&(struct trip){COMPRESS_LZ4, BOTH, 0, false, noise});

	assert_int_equal(f.wire, f.pages);
	assert_int_equal(f.by[CODEC_NONE], f.pages);
}

static void test_reader_decides(void **state)
{
	(void)state;
	struct stream_flow f = travel(&(struct trip){COMPRESS_ZSTD, CODEC_BIT(CODEC_LZ4), 0, false, words});

	assert_int_equal(f.wire, f.pages);
	f = travel(&(struct trip){COMPRESS_AUTO, 0, 1 << 20, false, words});
	assert_int_equal(f.wire, f.pages);
	/* A bit that nobody knows. */
	f = travel(&(struct trip){COMPRESS_LZ4, 1u << 7, 0, false, words});
	assert_int_equal(f.wire, f.pages);
}

/* A limit makes the link slow before it was seen; the target that stands is not held up for it. */
static void test_auto(void **state)
{
	(void)state;
	struct stream_flow f = travel(&(struct trip){COMPRESS_AUTO, BOTH, 1 << 20, false, words});

	assert_true(f.wire < f.pages / 2);
	f = travel(&(struct trip){COMPRESS_AUTO, BOTH, 1 << 20, true, words});
	assert_int_equal(f.wire, f.pages);
	f = travel(&(struct trip){COMPRESS_LZ4, BOTH, 0, true, words});
	assert_int_equal(f.wire, f.pages);
}

/* --- copies -------------------------------------------------------------------------------------- */

static int put_copy(struct stream_out *out, uint64_t addr, uint64_t from, uint64_t length, const void *data,
		    struct error *e)
{
	return stream_put_pages(out,
				&(struct page_run){.space = SPACE_PROCESS,
						   .flags = PAGE_RUN_COPY,
						   .id = 1,
						   .addr = addr,
						   .length = length,
						   .from = from},
				data, e);
}

static void test_copies(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct stream_in *in;
	struct record r;
	uint8_t data[2 * P];
	int pair[2];

	words(data, sizeof(data));
	assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), errno);
	assert_ok(stream_out_socket(&out, pair[0], &e), &e);
	assert_error(put_copy(out, 0x10000, 0x20000, P, data, &e), &e, EINVAL, "does not know them");
	e = (struct error)ERROR_INIT;
	stream_out_allow_copies(out);
	assert_false(stream_out_wants_copies(out)); /* the link has not been seen to be slow */
	assert_ok(put_copy(out, 0x10000, 0x20000, 2 * P, data, &e), &e);
	assert_ok(put_copy(out, 0x12000, 0x22000, P, data, &e), &e); /* goes on, but is a run of its own */
	assert_error(put_copy(out, 0x10000, 0x11000, 2 * P, data, &e), &e, EINVAL, "cannot be a copy");
	e = (struct error)ERROR_INIT;
	assert_error(put_copy(out, 0x10000, 0x10800, P, data, &e), &e, EINVAL, "cannot be a copy");
	e = (struct error)ERROR_INIT;
	assert_ok(stream_finish(out, &e), &e);
	assert_ok(stream_in_socket(&in, pair[1], &e), &e);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stream_get(in, &r, &e), 1);
		assert_true(r.is_pages && r.run.flags == PAGE_RUN_COPY && !r.data);
		assert_int_equal(r.run.addr, i ? 0x12000 : 0x10000);
		assert_int_equal(r.run.from, i ? 0x22000 : 0x20000);
		assert_int_equal(r.run.length, i ? P : 2 * P);
		assert_true(record_is_copy(&r, data));
		data[P - 1] ^= 1;
		assert_false(record_is_copy(&r, data));
		data[P - 1] ^= 1;
	}
	assert_int_equal(stream_get(in, &r, &e), 0);
	stream_in_free(in);
	stream_out_free(out);
	close(pair[0]);
	close(pair[1]);
}

/* An image holds contents. */
static void test_no_copies_in_images(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct wire_run run = {
		.flags = PAGE_RUN_COPY, .id = 1, .addr = 0x1000, .length = P, .offset = 0x5000};
	uint8_t payload[sizeof(struct wire_pages) + sizeof(run)] = {1};
	struct wire_run got[1];
	struct wire_fault f;
	struct stream_out *out;
	uint64_t size;
	uint32_t packed;
	size_t n;
	int dir = scratch_dir("image");

	assert_ok(stream_out_dir(&out, dir, NULL, &e), &e);
	stream_out_allow_copies(out);
	assert_error(put_copy(out, 0x10000, 0x20000, P, payload, &e), &e, EINVAL, "does not know them");
	stream_out_free(out);
	close(dir);
	wire_swap_runs(&run, 1);
	memcpy(payload + sizeof(struct wire_pages), &run, sizeof(run));
	assert_int_equal(
		wire_decode_pages(payload, sizeof(payload), true, CODEC_NONE, got, &n, &size, &packed, &f),
		0);
	assert_int_equal(
		wire_decode_pages(payload, sizeof(payload), false, CODEC_NONE, got, &n, &size, &packed, &f),
		-EBADMSG);
	assert_non_null(strstr(f.text, "in an image"));
}

/* --- bad streams --------------------------------------------------------------------------------- */

/* A stream with one packed page, in memory; @at: where its data are. */
struct packed_page {
	uint8_t bytes[16384];
	size_t n, pages, data;
};

static void make(struct packed_page *p)
{
	uint8_t page[P];
	struct error e = ERROR_INIT;
	struct stream_out *out;
	int pair[2];

	assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), errno);
	assert_ok(stream_out_socket(&out, pair[0], &e), &e);
	stream_out_compress(out, COMPRESS_LZ4, BOTH, 0);
	words(page, P);
	assert_ok(put_run(out, SPACE_PROCESS, 0, 1, 0x10000, P, page, &e), &e);
	assert_ok(stream_finish(out, &e), &e);
	stream_out_free(out);
	shutdown(pair[0], SHUT_WR);
	p->n = (size_t)recv(pair[1], p->bytes, sizeof(p->bytes), MSG_WAITALL);
	p->pages = sizeof(struct wire_record) + sizeof(struct wire_header);
	p->data = p->pages + sizeof(struct wire_record) + sizeof(struct wire_pages) + sizeof(struct wire_run);
	close(pair[0]);
	close(pair[1]);
}

/* The record's own checksum is put right. */
static int read_it(struct packed_page *p, struct error *e)
{
	struct record_in in;
	struct stream_header header;
	struct wire_run runs[4];
	struct wire_record h;
	cleanup_free uint8_t *data = xmalloc(STREAM_MAX_RUN);
	size_t n;

	memcpy(&h, p->bytes + p->pages, sizeof(h));
	h.checksum = htole64(wire_checksum(&h, p->bytes + p->pages + sizeof(h), le32toh(h.length)));
	memcpy(p->bytes + p->pages, &h, sizeof(h));
	*e = (struct error)ERROR_INIT;
	record_in_init_memory(&in, p->bytes, p->n, true);
	int rc = record_in_header(&in, WIRE_SOCKET, &header, e);

	if (rc >= 0)
		rc = record_in_next(&in, e);
	if (rc > 0)
		rc = record_in_pages(&in, runs, &n, data, e);
	if (rc >= 0)
		rc = record_in_check_data(&in, &runs[0], data, e);
	record_in_deinit(&in);
	return rc;
}

static void set32(struct packed_page *p, size_t at, uint32_t value)
{
	value = htole32(value);
	memcpy(p->bytes + at, &value, sizeof(value));
}

static void test_bad(void **state)
{
	(void)state;
	struct packed_page good, p;
	struct error e = ERROR_INIT;
	size_t flags, packed;

	make(&good);
	flags = good.pages + offsetof(struct wire_record, flags);
	packed = good.pages + sizeof(struct wire_record) + offsetof(struct wire_pages, packed);
	p = good;
	assert_ok(read_it(&p, &e), &e);

	p = good;
	set32(&p, packed, 0);
	assert_error(read_it(&p, &e), &e, EBADMSG, "packed with lz4");
	p = good;
	set32(&p, packed, P); /* not smaller */
	assert_error(read_it(&p, &e), &e, EBADMSG, "packed with lz4");
	p = good;
	set32(&p, packed, 0xffffffff);
	assert_error(read_it(&p, &e), &e, EBADMSG, "packed with lz4");
	p = good;
	set32(&p, flags, WIRE_FLAG_DATA); /* packed, and does not say so */
	assert_error(read_it(&p, &e), &e, EBADMSG, "packed with none");
	p = good;
	set32(&p, flags, WIRE_FLAG_DATA | WIRE_FLAG_LZ4 | WIRE_FLAG_ZSTD);
	assert_error(read_it(&p, &e), &e, EBADMSG, "unknown flags");
	p = good;
	set32(&p, flags, WIRE_FLAG_LZ4);
	assert_error(read_it(&p, &e), &e, EBADMSG, "unknown flags");
	p = good;
	set32(&p, flags, WIRE_FLAG_DATA | WIRE_FLAG_ZSTD); /* another codec */
	assert_error(read_it(&p, &e), &e, EBADMSG, "cannot be unpacked");
	for (size_t i = 0; i < 12; i++) {
		p = good;
		p.bytes[p.data + i] ^= 0x55;
		assert_true(read_it(&p, &e) < 0);
		assert_int_equal(e.code, EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trips),
		cmocka_unit_test(test_no_gain),
		cmocka_unit_test(test_reader_decides),
		cmocka_unit_test(test_auto),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_no_copies_in_images),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
