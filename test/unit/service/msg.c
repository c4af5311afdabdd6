/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/util.h"
#include "service/msg.h"
#include "base/net.h"

static ssize_t send_junk(int sock)
{
	return write(sock, "[1]x", 4);
}

static void descriptors(void **state)
{
	int s[2], fds[MSG_MAX_FDS], send[2] = {open("/dev/null", O_RDONLY), open("/dev/zero", O_RDONLY)};
	struct stat a, b;
	json_t *m = json_pack("{s:s,s:i,s:f}", "op", "x", "n", 5, "f", 1.5), *got = NULL;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s), 0);
	assert_int_equal(msg_send(s[0], m, send, 2, false), 0);
	assert_int_equal(msg_recv(s[1], &got, fds), 1);
	assert_string_equal(msg_str(got, "op", ""), "x");
	assert_string_equal(msg_str(got, "n", "def"), "def");
	assert_int_equal(msg_int(got, "n", 0), 5);
	assert_int_equal(msg_int(got, "missing", -3), -3);
	assert_true(msg_num(got, "f", 0) == 1.5 && msg_num(got, "n", 0) == 5);
	assert_true(fstat(send[1], &a) == 0 && fstat(fds[1], &b) == 0 && a.st_rdev == b.st_rdev);
	assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(fds[2], -1);
	msg_close_fds(fds);
	json_decref(got);

	/* Not wanted: closed, not leaked. */
	int next = dup(0);

	close(next);
	assert_int_equal(msg_send(s[0], m, send, 2, false), 0);
	assert_int_equal(msg_recv(s[1], &got, NULL), 1);
	json_decref(got);
	assert_int_equal(dup(0), next);
	close(next);

	assert_int_equal(send_junk(s[0]), 4);
	assert_int_equal(msg_recv(s[1], &got, fds), -EPROTO);
	int r = 0;

	for (int i = 0; i < 100000 && r == 0; i++)
		r = msg_send(s[0], m, NULL, 0, true);
	assert_int_equal(r, -EAGAIN);
	close(s[1]);
	assert_int_equal(msg_send(s[0], m, NULL, 0, false), -EPIPE);
	close(s[0]);
	close(send[0]);
	close(send[1]);
	json_decref(m);
}

static void end_of_file(void **state)
{
	int s[2];
	json_t *got = NULL;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s), 0);
	close(s[0]);
	assert_int_equal(msg_recv(s[1], &got, NULL), 0);
	close(s[1]);
}

static void errors_travel(void **state)
{
	struct error e = ERROR_INIT, got = ERROR_INIT;

	(void)state;
	error_phase(&e, "restore \xff");
	error_say_at(&e, "here.c:5", ENOSPC, "file \xff\xfe of pid 5"); /* file names are bytes */
	json_t *m = msg_result(&e);

	assert_int_equal(msg_to_error(json_object_get(m, "result"), &got), -ENOSPC);
	assert_string_equal(got.text, "file ?? of pid 5");
	assert_string_equal(got.where, "here.c:5");
	assert_string_equal(got.phase, "restore ?");
	json_decref(m);
	error_clear(&e);
	error_clear(&got);
	m = msg_result(&e);
	assert_int_equal(msg_to_error(json_object_get(m, "result"), &got), 0);
	assert_false(error_is(&got));
	json_decref(m);
}

static void split(const char *text, const char *host, const char *port)
{
	cleanup_free char *h = NULL, *p = NULL;
	struct error e = ERROR_INIT;

	assert_int_equal(net_split(text, "all", "7471", &h, &p, &e), 0);
	assert_string_equal(h, host);
	assert_string_equal(p, port);
}

static void addresses(void **state)
{
	static const char *const bad[] = {"host:", "host:x", "[::1", "[::1]x", "host:70000"};

	(void)state;
	split("host", "host", "7471");
	split("host:80", "host", "80");
	split("192.0.2.1:80", "192.0.2.1", "80");
	split("::1", "::1", "7471");
	split("[::1]", "::1", "7471");
	split("[::1]:80", "::1", "80");
	split(":80", "all", "80");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = ERROR_INIT;
		char *h, *p;

		assert_int_equal(net_split(bad[i], "all", "7471", &h, &p, &e), -EINVAL);
	}
}

static void connections(void **state)
{
	struct error e = ERROR_INIT;
	char port[8];

	(void)state;
	int l = net_listen("127.0.0.1", "0", &e);

	assert_true(l >= 0 && net_is_loopback(l));
	snprintf(port, sizeof(port), "%d", net_port(l));
	int c = net_connect("127.0.0.1", port, 1000, &e);

	assert_true(c >= 0);
	assert_false(fcntl(c, F_GETFL) & O_NONBLOCK);
	close(c);
	close(l);
	assert_int_equal(net_connect("127.0.0.1", port, 1000, &e), -ECONNREFUSED);
	assert_non_null(strstr(e.text, port));
	error_clear(&e);
	l = net_listen("0.0.0.0", "0", &e);
	assert_false(net_is_loopback(l));
	close(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors), cmocka_unit_test(end_of_file), cmocka_unit_test(errors_travel),
		cmocka_unit_test(addresses),   cmocka_unit_test(connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
