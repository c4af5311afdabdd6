/* SPDX-License-Identifier: Apache-2.0 */
/* Whose connections become part of a migration. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/util.h"
#include "migrate/join.h"

#define UUID "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

static char dir[64];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ferry-join-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	cleanup_free char *journal = xasprintf("%s/journal", dir), *in = xasprintf("%s/journal/in", dir);

	return mkdir(journal, 0700) < 0 || mkdir(in, 0700) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", dir);

	(void)state;
	return system(cmd);
}

/* A further connection, as the process has it that it came to; its other end, of the source, in *ret_far. */
static int give(const uint8_t *secret, size_t size, const char *fingerprint, int *ret_far)
{
	Ferry__PeerJoin j = FERRY__PEER_JOIN__INIT;
	struct link link = LINK_INIT;
	struct error e = ERROR_INIT;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	link.sock = pair[0];
	snprintf(link.fingerprint, sizeof(link.fingerprint), "%s", fingerprint);
	j.uuid = (char *)UUID;
	j.index = 1;
	j.secret = (ProtobufCBinaryData){size, (uint8_t *)secret};
	int r = join_give(&link, dir, &j, &e);

	close(pair[0]);
	*ret_far = pair[1];
	return r;
}

static bool is_closed(int sock)
{
	char c;

	return recv(sock, &c, 1, 0) == 0;
}

/* The destination's first process waits for one more, of the key "SHA256:mine". 0 when it came. */
static void wait_for_it(int sock, int listener, const uint8_t *secret)
{
	struct link link = LINK_INIT;
	struct error e = ERROR_INIT;
	struct peer p;

	link.sock = sock;
	strcpy(link.fingerprint, "SHA256:mine");
	if (peer_init(&p, sock, &e) < 0 || join_wait(&link, &p, 2, dir, UUID, listener, secret, NULL, &e) < 0)
		_exit(1);
	peer_deinit(&p);
	_exit(0);
}

static void only_of_the_source(void **state)
{
	uint8_t secret[JOIN_SECRET], other[JOIN_SECRET];
	struct error e = ERROR_INIT;
	int first[2], far, status;

	(void)state;
	int listener = join_listen(dir, UUID, secret, &e);

	assert_true(listener >= 0);
	memcpy(other, secret, sizeof(other));
	other[JOIN_SECRET - 1] ^= 1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, first), 0);
	pid_t pid = fork();

	if (pid == 0) {
		alarm(30);
		close(first[1]);
		wait_for_it(first[0], listener, secret);
	}
	close(first[0]);
	close(listener);
	/* Another secret, a part of it, none; another key; no TLS */
	static const struct {
		bool wrong;
		size_t size;
		const char *key;
	} strangers[] = {{true, JOIN_SECRET, "SHA256:mine"},
			 {false, JOIN_SECRET - 1, "SHA256:mine"},
			 {false, 0, "SHA256:mine"},
			 {false, JOIN_SECRET, "SHA256:other"},
			 {false, JOIN_SECRET, ""}};

	for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
		assert_int_equal(
			give(strangers[i].wrong ? other : secret, strangers[i].size, strangers[i].key, &far),
			0);
		assert_true(is_closed(far));
		close(far);
		assert_int_equal(waitpid(pid, NULL, WNOHANG), 0); /* it waits on */
	}
	int mine;

	assert_int_equal(give(secret, JOIN_SECRET, "SHA256:mine", &mine), 0);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	close(mine);
	close(first[1]);
	/* Nobody waits any more. */
	assert_int_equal(give(secret, JOIN_SECRET, "SHA256:mine", &far), -ENOENT);
	close(far);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(only_of_the_source)};

	alarm(60);
	return cmocka_run_group_tests(tests, setup, teardown);
}
