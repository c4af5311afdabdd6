/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips: everything that is put comes out, through a directory and through a socket. */
#include "helpers.h"

#include <pthread.h>
#include <sys/socket.h>

static const struct step {
	uint32_t space, flags;
	uint64_t id, addr, length;
} steps[] = {
	{SPACE_PROCESS, 0, 7, 0x10000, P},
	{SPACE_PROCESS, 0, 7, 0x11000, P}, /* goes on: one run */
	{SPACE_PROCESS, 0, 8, 0x12000, P}, /* another process */
	{SPACE_PROCESS, PAGE_RUN_ZERO, 8, 0x13000, 1ull << 40},
	{SPACE_PROCESS, PAGE_RUN_ZERO, 8, (1ull << 40) + 0x13000, P},
	{SPACE_PROCESS, PAGE_RUN_DROP, 8, 0x10000, P},
	{SPACE_OBJECT, 0, UINT64_MAX, 0, 5 << 20}, /* split, direct */
	{SPACE_FILE, 0, 3, 0, 12345},              /* padded */
	{SPACE_FILE, 0, 3, 12345, 10},
	{SPACE_FILE, 0, 4, 17, 300001},
	{SPACE_PROCESS, 0, 7, 0xfffffffff000 - P, 37 * P},
};

static const struct {
	uint32_t space;
	uint64_t id, addr, length;
} expected[] = {
	{SPACE_PROCESS, 7, 0x10000, 2 * P},
	{SPACE_PROCESS, 8, 0x12000, P},
	{SPACE_PROCESS, 8, 0x13000, (1ull << 40) + P},
	{SPACE_PROCESS, 8, 0x10000, P},
	{SPACE_OBJECT, UINT64_MAX, 0, 2 << 20},
	{SPACE_OBJECT, UINT64_MAX, 2 << 20, 2 << 20},
	{SPACE_OBJECT, UINT64_MAX, 4 << 20, 1 << 20},
	{SPACE_FILE, 3, 0, 12345},
	{SPACE_FILE, 3, 12345, 10},
	{SPACE_FILE, 4, 17, 300001},
	{SPACE_PROCESS, 7, 0xfffffffff000 - P, 37 * P},
};

/* A byte of page content that depends on where it belongs. */
static uint8_t byte_at(uint64_t id, uint64_t addr)
{
	return (uint8_t)(id * 5 + addr * 3 + (addr >> 12) * 11);
}

static void put_all(struct stream_out *out)
{
	struct error e = ERROR_INIT;

	assert_ok(put_inventory(out, "first", &e), &e);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		const struct step *s = &steps[i];
		cleanup_free uint8_t *data = s->flags ? NULL : xmalloc(s->length);

		for (uint64_t k = 0; k < s->length && data; k++)
			data[k] = byte_at(s->id, s->addr + k);
		assert_ok(put_run(out, s->space, s->flags, s->id, s->addr, s->length, data, &e), &e);
	}
	assert_ok(put_inventory(out, "last", &e), &e);
	assert_ok(stream_finish(out, &e), &e);
}

static void check_run(const struct record *r, size_t i)
{
	assert_true(i < ARRAY_SIZE(expected));
	assert_int_equal(r->run.space, expected[i].space);
	assert_int_equal(r->run.id, expected[i].id);
	assert_int_equal(r->run.addr, expected[i].addr);
	assert_int_equal(r->run.length, expected[i].length);
	if (r->run.flags) {
		assert_null(r->data);
		return;
	}
	for (uint64_t k = 0; k < r->run.length; k++)
		if (((const uint8_t *)r->data)[k] != byte_at(r->run.id, r->run.addr + k))
			fail_msg("run %zu, byte %ju", i, (uintmax_t)k);
}

/* @ordered: pages lie between the two state records, as they were put. */
static void get_all(struct stream_in *in, bool ordered)
{
	struct error e = ERROR_INIT;
	size_t runs = 0, states = 0;
	struct record r;
	int rc;

	while ((rc = stream_get(in, &r, &e)) > 0) {
		if (r.is_pages) {
			assert_int_equal(states, ordered ? 1 : 2);
			check_run(&r, runs++);
		} else {
			ProtobufCMessage *m;

			assert_int_equal(r.type, FERRY__RECORD_TYPE__RECORD_INVENTORY);
			assert_ok(record_unpack(&r, &ferry__inventory__descriptor, &m, &e), &e);
			assert_string_equal(((Ferry__Inventory *)m)->host, states ? "last" : "first");
			protobuf_c_message_free_unpacked(m, NULL);
			states++;
		}
	}
	assert_ok(rc, &e);
	assert_int_equal(runs, ARRAY_SIZE(expected));
	assert_int_equal(states, 2);
	assert_int_equal(stream_get(in, &r, &e), 0);
}

static void test_dir(void **state)
{
	cleanup_close int fd = scratch_dir("a");
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct stream_in *in;
	struct stat st;

	(void)state;
	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	assert_error(stream_in_dir(&in, fd, &e), &e, ENOENT, "no image in this directory");
	put_all(out);
	assert_true(stream_out_bytes(out) > 5 << 20);
	stream_out_free(out);
	assert_int_equal(count_files(fd), 3);
	for (int i = 0; i < IMAGE_FILES; i++) {
		assert_int_equal(fstatat(fd, image_file_name(i), &st, AT_SYMLINK_NOFOLLOW), 0);
		assert_int_equal(st.st_mode, S_IFREG | 0600);
	}
	error_clear(&e);
	assert_ok(stream_in_dir(&in, fd, &e), &e);
	assert_null(stream_in_parent(in));
	get_all(in, false);
	stream_in_free(in);
}

static void *put_thread(void *arg)
{
	put_all(arg);
	return NULL;
}

static void test_socket(void **state)
{
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct stream_in *in;
	pthread_t thread;
	int sv[2];
	char byte;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_ok(stream_out_socket(&out, sv[0], &e), &e);
	assert_ok(stream_in_socket(&in, sv[1], &e), &e);
	assert_int_equal(recv(sv[1], &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1); /* nothing before a flush */
	assert_int_equal(pthread_create(&thread, NULL, put_thread, out), 0);
	get_all(in, true);
	pthread_join(thread, NULL);
	/* What follows the trailer is not the stream's. */
	assert_int_equal(write(sv[0], "x", 1), 1);
	struct record r;

	assert_int_equal(stream_get(in, &r, &e), 0);
	assert_int_equal(read(sv[1], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	stream_out_free(out);
	stream_in_free(in);
	close(sv[0]);
	close(sv[1]);
}

static void test_socket_flush_and_pending(void **state)
{
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct stream_in *in;
	struct record r;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_ok(stream_out_socket(&out, sv[0], &e), &e);
	assert_ok(stream_in_socket(&in, sv[1], &e), &e);
	for (int i = 0; i < 3; i++)
		assert_ok(put_filled(out, 1, 0x10000 + i * 2 * P, P, i, &e), &e);
	assert_ok(stream_flush(out, &e), &e);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(stream_get(in, &r, &e), 1);
		assert_true(r.is_pages);
		assert_int_equal(r.run.addr, 0x10000 + i * 2 * P);
		assert_int_equal(stream_in_pending(in), i < 2);
	}
	/* Half a second without a byte, and then the end of the connection. */
	struct timeval tv = {.tv_usec = 100000};

	setsockopt(sv[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	assert_error(stream_get(in, &r, &e), &e, ETIMEDOUT, "nothing came from the peer");
	error_clear(&e);
	close(sv[0]);
	assert_error(stream_get(in, &r, &e), &e, EPIPE, "closed by the peer");
	stream_out_free(out);
	stream_in_free(in);
	close(sv[1]);
}

static void test_dead_peer(void **state)
{
	cleanup_free uint8_t *data = xcalloc(1, 2 << 20);
	struct error e = ERROR_INIT;
	struct stream_out *out;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	close(sv[1]);
	assert_ok(stream_out_socket(&out, sv[0], &e), &e);
	assert_error(put_run(out, 0, 0, 1, 0, 2 << 20, data, &e), &e, EPIPE, "connection: write");
	error_clear(&e);
	assert_error(stream_finish(out, &e), &e, EPIPE, "before this one failed");
	stream_out_free(out);
	close(sv[0]);
}

static void test_refused_puts(void **state)
{
	cleanup_close int fd = scratch_dir("refused");
	struct error e = ERROR_INIT;
	struct stream_out *out;
	uint8_t page[P] = {0};
	Ferry__Inventory m = FERRY__INVENTORY__INIT;

	(void)state;
	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	const struct page_run bad[] = {
		{3, 0, 1, 0, P, 0},
		{0, 8, 1, 0, P, 0},
		{0, PAGE_RUN_ZERO | PAGE_RUN_DROP, 1, 0, P, 0},
		{0, PAGE_RUN_SAME | PAGE_RUN_DROP, 1, 0, P, 2},
		{0, PAGE_RUN_SAME, 1, 0, P, 0},
		{0, PAGE_RUN_SAME, 1, 0, P, 1},
		{SPACE_OBJECT, PAGE_RUN_SAME, 1, 0, P, 2},
		{0, 0, 1, 1, P, 0},
		{0, 0, 1, 0, 100, 0},
		{0, PAGE_RUN_ZERO, 1, UINT64_MAX - P + 1, 2 * P, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_error(stream_put_pages(out, &bad[i], page, &e), &e, EINVAL, "");
		error_clear(&e);
	}
	assert_error(stream_put(out, FERRY__RECORD_TYPE__RECORD_TRAILER, 0, 0, 0, &m.base, &e), &e, EINVAL,
		     "type 3");
	error_clear(&e);
	assert_error(stream_put(out, FERRY__RECORD_TYPE__RECORD_PEER_HELLO, 0, 0, 0, &m.base, &e), &e, EINVAL,
		     "peer protocol");
	error_clear(&e);
	cleanup_free char *big = xcalloc(1, STREAM_MAX_RECORD + 1);

	memset(big, 'x', STREAM_MAX_RECORD);
	m.host = big;
	assert_error(stream_put(out, FERRY__RECORD_TYPE__RECORD_INVENTORY, 0, 0, 0, &m.base, &e), &e, EFBIG,
		     "at most");
	stream_out_free(out);
	assert_int_equal(count_files(fd), 0);
}

/* 100,000 runs of one page: few records, few writes, and nothing lost. */
static void test_small_runs(void **state)
{
	cleanup_close int fd = scratch_dir("small");
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct stream_in *in;
	struct record r;
	uint8_t page[P];
	struct stat st;
	uint32_t n = 0;

	(void)state;
	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	stream_out_fast(out);
	for (uint64_t i = 0; i < 100000; i++) {
		memset(page, (int)i, sizeof(page));
		memcpy(page, &i, sizeof(i));
		/* Every other page, in an order that is none. */
		assert_ok(put_run(out, 0, 0, 1, (i * 7919 % 100000) * 2 * P, P, page, &e), &e);
	}
	assert_ok(put_inventory(out, "", &e), &e);
	assert_ok(stream_finish(out, &e), &e);
	stream_out_free(out);
	assert_int_equal(fstatat(fd, PAGEMAP_IMG, &st, 0), 0);
	assert_in_range(st.st_size, 100000 * 48, 100000 * 49);
	assert_ok(stream_in_chain(&in, fd, &e), &e);
	while (stream_get(in, &r, &e) > 0) {
		uint64_t i;

		if (!r.is_pages)
			continue;
		memcpy(&i, r.data, sizeof(i));
		assert_int_equal(r.run.addr, (i * 7919 % 100000) * 2 * P);
		n++;
	}
	assert_int_equal(e.code, 0);
	assert_int_equal(n, 100000);
	stream_in_free(in);
}

/* A wait ends at once when the reader has hung up, and not before. */
static void test_is_over(void **state)
{
	struct error e = ERROR_INIT;
	struct stream_out *s;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_ok(stream_out_socket(&s, pair[0], &e), &e);
	assert_false(stream_out_is_over(s, 1000));
	assert_int_equal(write(pair[1], "x", 1), 1); /* it may say something */
	assert_false(stream_out_is_over(s, 1000));
	shutdown(pair[1], SHUT_WR);
	assert_true(stream_out_is_over(s, 3600 * 1000000000ull));
	stream_out_free(s);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dir),
		cmocka_unit_test(test_socket),
		cmocka_unit_test(test_socket_flush_and_pending),
		cmocka_unit_test(test_dead_peer),
		cmocka_unit_test(test_refused_puts),
		cmocka_unit_test(test_small_runs),
		cmocka_unit_test(test_is_over),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
