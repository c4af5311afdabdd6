/* SPDX-License-Identifier: Apache-2.0 */
/* Handshake and relay, over a socket pair. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/util.h"
#include "migrate/tls.h"

#define SIZE (4u << 20)

static char base[64], dirs[2][96];
static struct keys *keys[2];

static int setup(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	strcpy(base, "/tmp/ferry-tls-XXXXXX");
	if (!mkdtemp(base))
		return -1;
	for (int i = 0; i < 2; i++) {
		snprintf(dirs[i], sizeof(dirs[i]), "%s/%d", base, i);
		if (keys_init(dirs[i], &e) < 0 || keys_load(dirs[i], &keys[i], &e) < 0)
			return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", base);

	(void)state;
	keys_free(keys[0]);
	keys_free(keys[1]);
	return system(cmd);
}

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

/* The server: answers with what it gets, each byte one more, until the end. */
static int serve(int tcp)
{
	struct error e = ERROR_INIT;
	struct tls_peer peer;
	static uint8_t buf[100000];
	pid_t relay;
	SSL *ssl;

	if (tls_handshake(tcp, keys[1], NULL, &ssl, &peer, &e) < 0 || peer.by_ca ||
	    strcmp(peer.fingerprint, keys[0]->fingerprint))
		return 1;
	int plain = tls_relay(ssl, tcp, &relay, &e);
	ssize_t n;

	while ((n = read(plain, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			buf[i]++;
		if (write_full(plain, buf, (size_t)n) < 0)
			return 2;
	}
	close(plain);
	return n < 0 || waitpid(relay, NULL, 0) != relay ? 3 : 0;
}

static void test_relay(void **state)
{
	struct error e = ERROR_INIT;
	struct tls_peer peer;
	int pair[2], status;
	pid_t relay, server, writer;
	SSL *ssl;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	server = fork();
	if (server == 0) {
		close(pair[0]);
		_exit(serve(pair[1]));
	}
	close(pair[1]);
	assert_int_equal(tls_handshake(pair[0], keys[0], "there", &ssl, &peer, &e), 0);
	assert_string_equal(peer.fingerprint, keys[1]->fingerprint);
	assert_false(peer.by_ca);
	int plain = tls_relay(ssl, pair[0], &relay, &e);

	assert_true(plain >= 0);
	cleanup_free uint8_t *data = xmalloc(SIZE);

	for (size_t i = 0; i < SIZE; i++)
		data[i] = byte_at(i);
	writer = fork();
	if (writer == 0)
		_exit(write_full(plain, data, SIZE) < 0 || shutdown(plain, SHUT_WR) < 0);
	assert_int_equal(read_full(plain, data, SIZE), 0);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(data[i], (uint8_t)(byte_at(i) + 1));
	assert_int_equal(read(plain, data, 1), 0); /* the end arrives, too */
	close(plain);
	assert_int_equal(waitpid(relay, &status, 0), relay);
	assert_int_equal(waitpid(writer, &status, 0), writer);
	assert_int_equal(status, 0);
	assert_int_equal(waitpid(server, &status, 0), server);
	assert_int_equal(status, 0);
}

/* One that dies, with all its processes, is a connection that ended. */
static void test_death(void **state)
{
	struct error e = ERROR_INIT;
	struct tls_peer peer;
	int pair[2];
	pid_t relay, server;
	SSL *ssl;
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	server = fork();
	if (server == 0) {
		close(pair[0]);
		_exit(tls_handshake(pair[1], keys[1], NULL, &ssl, &peer, &e) < 0); /* without a goodbye */
	}
	close(pair[1]);
	assert_int_equal(tls_handshake(pair[0], keys[0], "there", &ssl, &peer, &e), 0);
	int plain = tls_relay(ssl, pair[0], &relay, &e);

	assert_true(read(plain, &c, 1) <= 0);
	close(plain);
	waitpid(relay, NULL, 0);
	waitpid(server, NULL, 0);
}

static void test_no_tls(void **state)
{
	struct error e = ERROR_INIT;
	struct tls_peer peer;
	int pair[2];
	SSL *ssl;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(write_full(pair[1], "FRRY and more than a record header", 30), 0);
	assert_int_equal(tls_handshake(pair[0], keys[0], "there", &ssl, &peer, &e), -EPROTO);
	error_clear(&e);
	close(pair[1]);
	close(pair[0]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	shutdown(pair[1], SHUT_WR);
	assert_int_equal(tls_handshake(pair[0], keys[0], NULL, &ssl, &peer, &e), -EPROTO);
	assert_non_null(strstr(e.text, "hung up"));
	close(pair[1]);
	close(pair[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_relay),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_no_tls),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
