/* SPDX-License-Identifier: Apache-2.0 */
/* A stream over a socket, damaged: recorded once, then played with each damage. */
#include "helpers.h"

#include <sys/socket.h>

#include "stream/records.h"

static struct memory mem;
static uint8_t bytes[64 * 1024];
static size_t size;

static int record_setup(void **state)
{
	struct error e = ERROR_INIT;
	struct stream_out *out;
	int sv[2], room = 1 << 20;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	assert_ok(stream_out_socket(&out, sv[0], &e), &e);
	assert_ok(put_inventory(out, "whole", &e), &e);
	assert_ok(put_filled(out, 1, 0x10000, 2 * P, 1, &e), &e);
	assert_ok(put_run(out, 0, PAGE_RUN_ZERO, 1, 0x20000, P, NULL, &e), &e);
	assert_ok(put_filled(out, 2, 0x10000, P, 2, &e), &e);
	assert_ok(put_inventory(out, "end", &e), &e);
	assert_ok(stream_finish(out, &e), &e);
	close(sv[0]);
	for (ssize_t n; (n = read(sv[1], bytes + size, sizeof(bytes) - size)) > 0;)
		size += n;
	close(sv[1]);
	stream_out_free(out);
	return 0;
}

static int play(const uint8_t *p, size_t n, struct error *e)
{
	int sv[2], room = 1 << 20;
	struct stream_in *in;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	assert_int_equal(write_full(sv[0], p, n), 0);
	close(sv[0]);
	assert_ok(stream_in_socket(&in, sv[1], e), e);
	int rc = memory_read(&mem, in, e);

	stream_in_free(in);
	close(sv[1]);
	return rc;
}

static void test_whole(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	assert_ok(play(bytes, size, &e), &e);
	assert_int_equal(mem.states, 2);
	assert_int_equal(mem.runs, 3);
	assert_string_equal(mem.host, "end");
}

static void test_truncated(void **state)
{
	(void)state;
	for (size_t n = 0; n<size; n += n> 400 && n < size - 400 ? 173 : 1) {
		struct error e = ERROR_INIT;
		int rc = play(bytes, n, &e);

		if (rc >= 0 || !(strstr(e.text, "cut short") || strstr(e.text, "closed by the peer")))
			fail_msg("%zu of %zu bytes: %d %s", n, size, rc, e.text);
	}
}

static void test_flipped(void **state)
{
	(void)state;
	for (size_t i = 0; i<size; i += i> 400 && i < size - 400 ? 61 : 1) {
		struct error e = ERROR_INIT;

		bytes[i] ^= 1 << i % 8;
		int rc = play(bytes, size, &e);

		bytes[i] ^= 1 << i % 8;
		if (rc >= 0 || strncmp(e.text, "connection", 10) != 0)
			fail_msg("byte %zu: %d %s", i, rc, e.text);
	}
}

/* Two records in the other order, one twice, one left out: all with right checksums. */
static void test_order(void **state)
{
	struct wire_record h;
	struct error e = ERROR_INIT;
	cleanup_free uint8_t *p = xmalloc(2 * size);
	size_t second = 88, third;

	(void)state;
	memcpy(&h, bytes + second, sizeof(h));
	third = second + sizeof(h) + h.length;
	memcpy(p, bytes, third);
	memcpy(p + third, bytes + second, size - second);
	assert_error(play(p, size + third - second, &e), &e, EBADMSG, "record 2 (INVENTORY)");
	error_clear(&e);
	memcpy(p + second, bytes + third, size - third);
	assert_error(play(p, size - (third - second), &e), &e, EBADMSG, "out of order");
	error_clear(&e);
	assert_error(play(bytes + second, size - second, &e), &e, EBADMSG, "out of order");
}

/* A record of another stream in the place of one of ours: right by itself, but not the one that the trailer
 * knows. */
static void test_exchanged(void **state)
{
	cleanup_free uint8_t *p = xmemdup(bytes, size);
	struct wire_record h;
	struct error e = ERROR_INIT;

	(void)state;
	memcpy(&h, p + 88, sizeof(h));
	p[88 + 40 + h.length - 1] ^= 1;
	h.checksum = htole64(wire_checksum(&h, p + 88 + 40, h.length));
	memcpy(p + 88, &h, sizeof(h));
	assert_error(play(p, size, &e), &e, EBADMSG, "the trailer does not match the records");
}

/* Records from memory, as a fuzzer has them. */
static void test_memory(void **state)
{
	cleanup_free struct wire_run *runs = xcalloc(WIRE_MAX_RUNS, sizeof(*runs));
	cleanup_free uint8_t *data = xmalloc(STREAM_MAX_RUN);
	struct stream_header h;
	struct record_in in;
	struct error e = ERROR_INIT;
	unsigned records = 0;
	size_t n;
	int rc;

	(void)state;
	record_in_init_memory(&in, bytes, size, true);
	assert_ok(record_in_header(&in, WIRE_SOCKET, &h, &e), &e);
	while ((rc = record_in_next(&in, &e)) > 0) {
		records++;
		if (in.h.type == FERRY__RECORD_TYPE__RECORD_PAGES)
			assert_ok(record_in_pages(&in, runs, &n, data, &e), &e);
	}
	assert_ok(rc, &e);
	assert_int_equal(records, 3);
	assert_int_equal(n, 3);
	record_in_deinit(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),     cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_flipped),   cmocka_unit_test(test_order),
		cmocka_unit_test(test_exchanged), cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, record_setup, NULL);
}
