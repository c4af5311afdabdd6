/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions with a page server: both ends in this process. */
#include "helpers.h"

#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "stream/records.h"

static struct memory mem;

struct server {
	int sock, dirfd;
	pthread_t thread;
	int rc;
	uint64_t bytes;
	struct error e;
};

static void *serve(void *arg)
{
	struct server *s = arg;

	s->rc = page_server_serve(s->sock, s->dirfd, &s->bytes, &s->e);
	close(s->sock);
	return NULL;
}

/* Over TCP: there a careless close would destroy an answer that is still on its way. */
static void tcp_pair(int sv[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	cleanup_close int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(a);

	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	sv[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(sv[0], (struct sockaddr *)&a, len), 0);
	sv[1] = accept(listener, NULL, NULL);
	assert_true(sv[1] >= 0);
}

/* Returns the client's end. */
static int start(struct server *s, int dirfd)
{
	int sv[2];

	tcp_pair(sv);
	*s = (struct server){.sock = sv[1], .dirfd = dirfd, .rc = 1};
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	return sv[0];
}

static void copy(int from, int to, const char *name)
{
	cleanup_free char *p = NULL;
	ssize_t n = read_file_at(from, name, &p);
	cleanup_close int fd = openat(to, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(n >= 0 && fd >= 0);
	assert_int_equal(write_full(fd, p, n), 0);
}

static void session(int local, int remote, const char *parent, const char *host, unsigned seed)
{
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct server s;
	int sock = start(&s, remote);

	assert_ok(stream_out_page_server(&out, local, sock, parent, &e), &e);
	assert_ok(put_inventory(out, host, &e), &e);
	assert_ok(put_filled(out, 1, 0x10000 + seed * P, 4 * P, seed, &e), &e);
	assert_ok(put_run(out, 0, PAGE_RUN_DROP, 2, 0x10000, P, NULL, &e), &e);
	assert_ok(put_filled(out, 1, 0x100000000, 5 << 20, seed, &e), &e);
	assert_ok(stream_finish(out, &e), &e);
	/* It has answered, so it is there. */
	struct stat st;

	assert_int_equal(fstatat(remote, PAGEMAP_IMG, &st, 0), 0);
	stream_out_free(out);
	pthread_join(s.thread, NULL);
	assert_ok(s.rc, &s.e);
	assert_int_equal(s.bytes, (5 << 20) + 4 * P);
	close(sock);
}

static void test_session(void **state)
{
	cleanup_close int local = scratch_dir("local"), remote = scratch_dir("remote");
	cleanup_close int local2 = scratch_dir("local2"), remote2 = scratch_dir("remote2");
	struct error e = ERROR_INIT;
	struct stream_in *in;

	(void)state;
	session(local, remote, NULL, "first", 1);
	assert_int_equal(count_files(local), 1);
	assert_int_equal(count_files(remote), 2);
	assert_error(stream_in_chain(&in, local, &e), &e, ENOENT, "went to a page server");
	error_clear(&e);
	assert_error(stream_in_chain(&in, remote, &e), &e, ENOENT, "only pages are here");
	error_clear(&e);
	/* The second one names its parent, which lies beside it at the server. */
	session(local2, remote2, "../remote", "second", 3);
	copy(local2, remote2, STATE_IMG);
	assert_ok(stream_in_chain(&in, remote2, &e), &e);
	assert_ok(memory_read(&mem, in, &e), &e);
	stream_in_free(in);
	assert_string_equal(mem.host, "second");
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(mem.has[1][i], i >= 1 && i < 7);
	uint8_t want[4 * P];

	fill(want, sizeof(want), 1);
	assert_memory_equal(mem.page[1] + P, want, 2 * P);
	fill(want, sizeof(want), 3);
	assert_memory_equal(mem.page[1] + 3 * P, want, 4 * P);
	/* State of one session, pages of another. */
	copy(local, remote2, STATE_IMG);
	assert_error(stream_in_chain(&in, remote2, &e), &e, EBADMSG, "not of the same image");
	/* The same directory at both ends. */
	session(remote, remote, NULL, "same", 2);
	error_clear(&e);
	assert_ok(stream_in_chain(&in, remote, &e), &e);
	stream_in_free(in);
}

/* The server can't: the client hears why, while it still sends, and has no image. */
static void test_server_fails(void **state)
{
	cleanup_close int local = scratch_dir("fail"), remote = scratch_dir("failremote");
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct server s;
	int sock, rc = 0;

	(void)state;
	mkdirat(remote, PAGES_IMG, 0700);
	sock = start(&s, remote);
	assert_ok(stream_out_page_server(&out, local, sock, NULL, &e), &e);
	for (uint64_t i = 0; i < 1000 && rc == 0; i++)
		rc = put_filled(out, 1, i << 20, 1 << 20, i, &e);
	assert_error(rc, &e, EISDIR, "page server: pages.img: Is a directory");
	stream_out_free(out);
	close(sock);
	pthread_join(s.thread, NULL);
	assert_int_equal(s.rc, -EISDIR);
	assert_int_equal(count_files(local), 0);
	assert_int_equal(count_files(remote), 1);

	error_clear(&e);
	unlinkat(remote, PAGES_IMG, AT_REMOVEDIR);
	sock = start(&s, remote);
	assert_ok(stream_out_page_server(&out, local, sock, "../nowhere", &e), &e);
	assert_error(stream_finish(out, &e), &e, ENOENT, "page server: parent image directory ../nowhere");
	stream_out_free(out);
	close(sock);
	pthread_join(s.thread, NULL);
	assert_int_equal(count_files(local) + count_files(remote), 0);
}

static void test_client_dies(void **state)
{
	cleanup_close int local = scratch_dir("dies"), remote = scratch_dir("diesremote");
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct server s;
	int sock = start(&s, remote);

	(void)state;
	assert_ok(stream_out_page_server(&out, local, sock, NULL, &e), &e);
	assert_ok(put_filled(out, 1, 0, 4 << 20, 1, &e), &e);
	assert_ok(stream_flush(out, &e), &e);
	stream_out_free(out);
	close(sock);
	pthread_join(s.thread, NULL);
	assert_error(s.rc, &s.e, EPIPE, "closed by the peer");
	assert_int_equal(count_files(local) + count_files(remote), 0);
}

static void test_server_dies(void **state)
{
	cleanup_close int local = scratch_dir("sdies");
	struct error e = ERROR_INIT;
	struct stream_out *out;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_ok(stream_out_page_server(&out, local, sv[0], NULL, &e), &e);
	shutdown(sv[1], SHUT_WR);
	assert_error(stream_finish(out, &e), &e, EPIPE, "page server: closed by the peer");
	stream_out_free(out);
	assert_int_equal(count_files(local), 0);
	close(sv[0]);
	close(sv[1]);
}

/* What is no session, or one with a flipped bit in its data. */
static void test_bad_client(void **state)
{
	cleanup_close int remote = scratch_dir("badremote"), local = scratch_dir("badlocal");
	static const char http[] = "GET / HTTP/1.0\r\nHost: a-host-with-a-long-name\r\n\r\n";
	struct error e = ERROR_INIT;
	struct stream_out *out;
	struct server s;
	int sock = start(&s, remote), sv[2];

	(void)state;
	assert_int_equal(write(sock, http, sizeof(http)), sizeof(http));
	close(sock);
	pthread_join(s.thread, NULL);
	assert_error(s.rc, &s.e, EBADMSG, "not a ferry stream");

	sock = start(&s, remote);
	assert_ok(stream_out_socket(&out, sock, &e), &e);
	assert_ok(stream_finish(out, &e), &e);
	stream_out_free(out);
	close(sock);
	pthread_join(s.thread, NULL);
	assert_error(s.rc, &s.e, EBADMSG, "a stream is here where a page server session is needed");

	/* Record a session, spoil the last byte of its data, play it. */
	uint8_t bytes[16384];
	ssize_t n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_ok(stream_out_page_server(&out, local, sv[0], NULL, &e), &e);
	assert_ok(put_filled(out, 1, 0, P, 1, &e), &e);
	assert_ok(stream_flush(out, &e), &e);
	n = read(sv[1], bytes, sizeof(bytes));
	assert_int_equal(n, 88 + 96 + P);
	bytes[n - 1] ^= 1;
	stream_out_free(out);
	close(sv[0]);
	close(sv[1]);
	sock = start(&s, remote);
	assert_int_equal(write(sock, bytes, n), n);
	close(sock);
	pthread_join(s.thread, NULL);
	assert_error(s.rc, &s.e, EBADMSG, "page data of the record at byte 88: corrupt");
	assert_int_equal(count_files(remote), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_session),     cmocka_unit_test(test_server_fails),
		cmocka_unit_test(test_client_dies), cmocka_unit_test(test_server_dies),
		cmocka_unit_test(test_bad_client),
	};

	signal(SIGPIPE, SIG_IGN); /* for the plain writes of this test */
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
