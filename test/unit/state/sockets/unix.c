/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips of unix sockets. */
#include "../files/fixture.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char dir[64];

static struct sockaddr_un name_of(const char *format, socklen_t *n)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), format, dir[0] ? dir : "");
	*n = offsetof(struct sockaddr_un, sun_path) + strlen(a.sun_path) + 1;
	return a;
}

/* "@name": abstract */
static int bind_to(int fd, const char *format)
{
	socklen_t n;
	struct sockaddr_un a = name_of(format, &n);

	if (a.sun_path[0] == '@') {
		a.sun_path[0] = 0;
		n--;
	}
	return bind(fd, (struct sockaddr *)&a, n);
}

static int connect_named(int fd, const char *format)
{
	socklen_t n;
	struct sockaddr_un a = name_of(format, &n);

	if (a.sun_path[0] == '@') {
		a.sun_path[0] = 0;
		n--;
	}
	return connect(fd, (struct sockaddr *)&a, n);
}

static bool has_name(int fd, bool peer, const char *format)
{
	struct sockaddr_un a;
	socklen_t n = sizeof(a), want_n;
	struct sockaddr_un want = name_of(format, &want_n);

	memset(&a, 0, sizeof(a));
	if ((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&a, &n) < 0)
		return false;
	if (want.sun_path[0] == '@')
		want.sun_path[0] = 0;
	return !memcmp(a.sun_path, want.sun_path, strlen(format) ? want_n - 3 : 0) &&
	       (strlen(format) || n == 2);
}

static void send_fds(int fd, const char *data, const int *fds, int n)
{
	union {
		struct cmsghdr h;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control = {0};
	struct iovec v = {(void *)data, strlen(data)};
	struct msghdr h = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = CMSG_SPACE(n * sizeof(int))};

	control.h.cmsg_level = SOL_SOCKET;
	control.h.cmsg_type = SCM_RIGHTS;
	control.h.cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(&control.h), fds, n * sizeof(int));
	MUST(sendmsg(fd, &h, 0) == (ssize_t)strlen(data));
}

static int receive_fds(int fd, char *data, size_t size, int *fds)
{
	union {
		struct cmsghdr h;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control = {0};
	struct iovec v = {data, size};
	struct msghdr h = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(fd, &h, MSG_DONTWAIT);

	MUST(n >= 0);
	data[n] = 0;
	if (!h.msg_controllen)
		return 0;
	memcpy(fds, CMSG_DATA(&control.h), control.h.cmsg_len - CMSG_LEN(0));
	return (control.h.cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

static void pairs_setup(int k)
{
	int p[2], size = 50000;

	(void)k;
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0); /* 0, 1 */
	MUST(write(0, "to one", 6) == 6 && write(1, "to ", 3) == 3 && write(1, "zero", 4) == 4);
	MUST(fcntl(0, F_SETFL, O_NONBLOCK) == 0 &&
	     setsockopt(0, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
	MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, p) == 0); /* 2, 3 */
	MUST(send(2, "first", 5, 0) == 5 && send(2, "", 0, 0) == 0 && send(2, "third", 5, 0) == 5);
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p) == 0); /* 4, 5 */
	MUST(send(4, "ab", 2, 0) == 2 && send(4, "cde", 3, 0) == 3 && shutdown(4, SHUT_WR) == 0);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0); /* 6, 7: the other end closed, data left */
	MUST(write(7, "bye", 3) == 3 && close(7) == 0);
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, p) == 0); /* 7, 8: likewise */
	MUST(send(8, "last", 4, 0) == 4 && close(8) == 0);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0); /* 8, 9: SO_PEEK_OFF in use */
	int off = 2;

	MUST(write(8, "peekable", 8) == 8 && setsockopt(9, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)) == 0);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0); /* 10, 11: more than the default buffer takes */
	int much = 400000;
	static char block[600000];

	MUST(setsockopt(10, SOL_SOCKET, SO_SNDBUFFORCE, &much, sizeof(much)) == 0);
	memset(block, 'm', sizeof(block));
	ssize_t n = send(10, block, sizeof(block), MSG_DONTWAIT);

	MUST(n > 250000);
	shared->values[0] = n;
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 12);
}

static void pairs_verify(int k)
{
	char text[64];
	socklen_t n = sizeof(int);
	int v = 0;

	(void)k;
	MUST(fcntl(0, F_GETFL) == (O_RDWR | O_NONBLOCK) && fcntl(1, F_GETFL) == O_RDWR);
	MUST(getsockopt(0, SOL_SOCKET, SO_SNDBUF, &v, &n) == 0 && v == 100000);
	MUST(read(1, text, 64) == 6 && !memcmp(text, "to one", 6));
	MUST(read(0, text, 64) == 7 && !memcmp(text, "to zero", 7));
	MUST(write(1, "again", 5) == 5 && read(0, text, 64) == 5);
	MUST(fcntl(2, F_GETFD) & FD_CLOEXEC);
	MUST(recv(3, text, 64, 0) == 5 && recv(3, text, 64, 0) == 0 && recv(3, text, 64, 0) == 5 &&
	     !memcmp(text, "third", 5));
	MUST(send(3, "x", 1, 0) == 1 && recv(2, text, 64, 0) == 1);
	MUST(recv(5, text, 64, 0) == 2 && recv(5, text, 64, 0) == 3 && recv(5, text, 64, 0) == 0);
	signal(SIGPIPE, SIG_IGN);
	MUST(send(4, "x", 1, 0) == -1 && errno == EPIPE && send(5, "y", 1, 0) == 1 &&
	     recv(4, text, 64, 0) == 1);
	MUST(read(6, text, 64) == 3 && read(6, text, 64) == 0 && write(6, "x", 1) == -1 && errno == EPIPE);
	MUST(recv(7, text, 64, 0) == 4 && send(7, "x", 1, 0) == -1 && errno == ECONNREFUSED);
	MUST(getsockopt(9, SOL_SOCKET, SO_PEEK_OFF, &v, &n) == 0 && v == 2);
	MUST(recv(9, text, 3, MSG_PEEK) == 3 && !memcmp(text, "eka", 3) && read(9, text, 64) == 8);
	static char block[600000];
	long left = shared->values[0];

	while (left > 0) {
		ssize_t got = recv(11, block, sizeof(block), MSG_DONTWAIT);

		MUST(got > 0 && block[got - 1] == 'm');
		left -= got;
	}
	MUST(left == 0 && recv(11, block, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	MUST(getsockopt(10, SOL_SOCKET, SO_SNDBUF, &v, &n) == 0 && v == 800000);
	MUST(getsockopt(11, SOL_SOCKET, SO_SNDBUF, &v, &n) == 0 && v < 800000);
	struct sockaddr_un peer;

	n = sizeof(peer);
	MUST(getpeername(12, (struct sockaddr *)&peer, &n) == -1 && errno == ENOTCONN);
}

static void test_pairs(void **state)
{
	(void)state;
	round_trip(&(struct scenario){pairs_setup, pairs_verify, 1, {0}});
}

static void named_setup(int k)
{
	(void)k;
	umask(077);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 0);
	MUST(bind_to(0, "%s/listener") == 0 && listen(0, 5) == 0);
	char path[128];

	snprintf(path, sizeof(path), "%s/listener", dir);
	MUST(chmod(path, 0666) == 0);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 1 && connect_named(1, "%s/listener") == 0);
	MUST(accept(0, NULL, NULL) == 2 && write(1, "from client", 11) == 11 &&
	     write(2, "from server", 11) == 11);
	/* abstract, seqpacket */
	MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0) == 3 && bind_to(3, "@ferry-unit-abstract") == 0 &&
	     listen(3, 3) == 0);
	/* a client with a name, whose listener is closed and deleted */
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 4 && bind_to(4, "%s/short") == 0 && listen(4, 1) == 0);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 5 && bind_to(5, "@ferry-unit-client") == 0 &&
	     connect_named(5, "%s/short") == 0);
	MUST(accept(4, NULL, NULL) == 6 && close(4) == 0);
	snprintf(path, sizeof(path), "%s/short", dir);
	MUST(unlink(path) == 0);
	/* one that waits to be accepted */
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 4 && connect_named(4, "%s/listener") == 0);
	/* datagrams: a named receiver, connected and unconnected and dead senders */
	MUST(socket(AF_UNIX, SOCK_DGRAM, 0) == 7 && bind_to(7, "%s/receiver") == 0);
	MUST(socket(AF_UNIX, SOCK_DGRAM, 0) == 8 && connect_named(8, "%s/receiver") == 0 &&
	     send(8, "unnamed", 7, 0) == 7);
	MUST(socket(AF_UNIX, SOCK_DGRAM, 0) == 9 && bind_to(9, "@ferry-unit-dead") == 0);
	MUST(connect_named(9, "%s/receiver") == 0 && send(9, "dead", 4, 0) == 4 && close(9) == 0);
	MUST(socket(AF_UNIX, SOCK_DGRAM, 0) == 9 && bind_to(9, "%s/sender") == 0);
	MUST(connect_named(9, "%s/receiver") == 0 && send(9, "named", 5, 0) == 5);
	/* relative to a directory */
	MUST(chdir(dir) == 0 && socket(AF_UNIX, SOCK_STREAM, 0) == 10);
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "relative"};

	MUST(bind(10, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(10, 1) == 0);
}

static void expect_datagram(int fd, const char *data, const char *from)
{
	struct sockaddr_un a = {0};
	socklen_t n = sizeof(a);
	char text[64] = "";

	MUST(recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&a, &n) == (ssize_t)strlen(data));
	MUST(!strcmp(text, data));
	if (!from) {
		MUST(n == 0 || n == 2);
	} else {
		socklen_t want_n;
		struct sockaddr_un want = name_of(from, &want_n);

		MUST(!memcmp(a.sun_path + 1, want.sun_path + 1, strlen(want.sun_path) - 1));
	}
}

static void named_verify(int k)
{
	char text[64], path[128];
	struct stat st;

	(void)k;
	MUST(has_name(0, false, "%s/listener") && has_name(2, false, "%s/listener") &&
	     has_name(1, true, "%s/listener"));
	MUST(read(2, text, 64) == 11 && !memcmp(text, "from client", 11) && read(1, text, 64) == 11);
	snprintf(path, sizeof(path), "%s/listener", dir);
	MUST(stat(path, &st) == 0 && (st.st_mode & 0777) == 0666);
	/* the waiting client is accepted before a new one */
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 11 && connect_named(11, "%s/listener") == 0);
	MUST(write(4, "waited", 6) == 6 && accept(0, NULL, NULL) == 12 && read(12, text, 64) == 6);
	MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0) == 13 && connect_named(13, "@ferry-unit-abstract") == 0);
	MUST(has_name(5, false, "@ferry-unit-client") && has_name(6, true, "@ferry-unit-client"));
	MUST(has_name(6, false, "%s/short") && has_name(5, true, "%s/short"));
	snprintf(path, sizeof(path), "%s/short", dir);
	MUST(access(path, F_OK) == -1 && write(5, "x", 1) == 1 && read(6, text, 64) == 1);
	expect_datagram(7, "unnamed", NULL);
	expect_datagram(7, "dead", "@ferry-unit-dead");
	expect_datagram(7, "named", "%s/sender");
	MUST(send(8, "more", 4, 0) == 4 && send(9, "and", 3, 0) == 3);
	expect_datagram(7, "more", NULL);
	expect_datagram(7, "and", "%s/sender");
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == 14 && connect_named(14, "%s/relative") == 0);
	struct sockaddr_un a;
	socklen_t n = sizeof(a);

	MUST(getsockname(10, (struct sockaddr *)&a, &n) == 0 && !strcmp(a.sun_path, "relative"));
}

static void remove_names(void)
{
	static const char *const names[] = {"listener", "receiver", "sender", "relative", "short"};
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
}

static void test_named(void **state)
{
	(void)state;
	round_trip(&(struct scenario){named_setup, named_verify, 1, {0}});
	remove_names();
	assert_int_equal(rmdir(dir), 0); /* nothing was put aside and forgotten */
	assert_int_equal(mkdir(dir, 0700), 0);
}

/* Descriptors on their way: of files in the table, of files that nobody else has, of the sockets themselves.
 */
static void rights_setup(int k)
{
	int p[2], one = 1, fds[3];

	(void)k;
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0); /* 0, 1 */
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, p) == 0);  /* 2, 3 */
	MUST(open("/dev/null", O_WRONLY) == 4);
	MUST(pipe(p) == 0); /* 5, 6 */
	fds[0] = 4;
	fds[1] = 5;
	MUST(write(0, "before ", 7) == 7);
	send_fds(0, "with", fds, 2);
	MUST(write(0, "after", 5) == 5);
	fds[0] = 1; /* into itself */
	fds[1] = 6;
	send_fds(2, "dgram", fds, 2);
	MUST(write(6, "in pipe", 7) == 7);
	MUST(close(5) == 0 && close(6) == 0);
	/* both ends of a connection only in a queue */
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0 && p[0] == 5 && p[1] == 6);
	MUST(write(5, "deep", 4) == 4);
	send_fds(0, "!", p, 2);
	MUST(close(5) == 0 && close(6) == 0);
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, p) == 0); /* 5, 6: credentials */
	MUST(setsockopt(6, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) == 0 && send(5, "who", 3, 0) == 3);
}

static void rights_verify(int k)
{
	char text[64];
	int fds[8];

	(void)k;
	/* no descriptors with what was sent before them */
	MUST(receive_fds(1, text, 7, fds) == 0 && !strcmp(text, "before "));
	MUST(receive_fds(1, text, 63, fds) == 2 && !strcmp(text, "with"));
	MUST(syscall(SYS_kcmp, getpid(), getpid(), 0, 4, fds[0]) == 0);
	int reader = fds[1];

	MUST(receive_fds(3, text, 63, fds) == 2 && !strcmp(text, "dgram"));
	MUST(syscall(SYS_kcmp, getpid(), getpid(), 0, 1, fds[0]) == 0);
	MUST(close(fds[1]) == 0 && read(reader, text, 63) == 7 && read(reader, text, 63) == 0);
	MUST(receive_fds(1, text, 63, fds) == 2 && !strcmp(text, "after!"));
	MUST(read(fds[1], text, 63) == 4 && write(fds[1], "back", 4) == 4 && read(fds[0], text, 63) == 4);
	struct ucred c;
	union {
		struct cmsghdr h;
		char bytes[CMSG_SPACE(sizeof(c))];
	} control;
	struct iovec v = {text, 63};
	struct msghdr h = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

	MUST(recvmsg(6, &h, 0) == 3 && h.msg_controllen && control.h.cmsg_type == SCM_CREDENTIALS);
	memcpy(&c, CMSG_DATA(&control.h), sizeof(c));
	MUST(c.uid == getuid() && c.pid > 0);
}

static void test_rights(void **state)
{
	(void)state;
	round_trip(&(struct scenario){rights_setup, rights_verify, 1, {0}});
}

static void processes_setup(int k)
{
	int p[2];

	if (k == 0)
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0 && write(0, "hello", 5) == 5);
	else
		MUST(close(0) == 0);
}

static void processes_verify(int k)
{
	char text[8];

	if (k == 0) {
		MUST(close(1) == 0 && read(0, text, 8) == 2);
		return;
	}
	MUST(read(1, text, 8) == 5 && write(1, "ok", 2) == 2);
	MUST(read(1, text, 8) == 0);
}

static void test_processes(void **state)
{
	(void)state;
	round_trip(&(struct scenario){processes_setup, processes_verify, 2, {0}});
}

static void outside_setup(int k)
{
	int p[2];

	(void)k;
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0);
	if (fork() == 0) {
		alarm(20);
		pause();
	}
	close(1);
}

static void test_outside(void **state)
{
	(void)state;
	refused(&(struct scenario){outside_setup, NULL, 1, {0}}, 0, "outside the tree");
}

/* Captured and left running: everything can still be read, once. */
static void test_unchanged(void **state)
{
	(void)state;
	struct fixture x;
	char text[64];

	start(&x, &(struct scenario){pairs_setup, NULL, 1, {0}});
	assert_int_equal(preflight(&x), 0);
	assert_int_equal(capture(&x), 0);
	files_capture_free(&x.c);
	int one = sys_pidfd_getfd(x.procs[0].pidfd, 1), three = sys_pidfd_getfd(x.procs[0].pidfd, 3);
	int nine = sys_pidfd_getfd(x.procs[0].pidfd, 9), off = 0;
	socklen_t n = sizeof(off);

	assert_int_equal(recv(one, text, 64, MSG_DONTWAIT), 6);
	assert_int_equal(getsockopt(one, SOL_SOCKET, SO_PEEK_OFF, &off, &n), 0);
	assert_int_equal(off, -1);
	assert_int_equal(recv(three, text, 64, MSG_DONTWAIT), 5);
	assert_int_equal(recv(three, text, 64, MSG_DONTWAIT), 0);
	assert_int_equal(recv(three, text, 64, MSG_DONTWAIT), 5);
	assert_int_equal(getsockopt(nine, SOL_SOCKET, SO_PEEK_OFF, &off, &n), 0);
	assert_int_equal(off, 2);
	close(one);
	close(three);
	close(nine);
	stop(&x);
	finish(&x);
}

/* A rebuild that is given up puts the dead file of the source back. */
static void test_given_up(void **state)
{
	(void)state;
	struct fixture x;
	struct stat before, after;
	char path[128];

	start(&x, &(struct scenario){named_setup, NULL, 1, {0}});
	assert_int_equal(capture(&x), 0);
	stop(&x);
	snprintf(path, sizeof(path), "%s/listener", dir);
	assert_int_equal(stat(path, &before), 0);
	ProtobufCMessage *m = snapshot_find(&x.snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0);

	if (kind_files.prepare(&x.r, m, &x.e) < 0)
		fail_msg("%s", x.e.text);
	assert_int_equal(stat(path, &after), 0);
	assert_true(before.st_ino != after.st_ino);
	files_rebuild_free(&x.r, false);
	assert_int_equal(stat(path, &after), 0);
	assert_true(before.st_ino == after.st_ino);
	remove_names();
	finish(&x);
}

static int set_up(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/ferry-unit-unix-%d", getpid());
	return mkdir(dir, 0700) || make_shared(state);
}

static int tear_down(void **state)
{
	(void)state;
	remove_names();
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs),    cmocka_unit_test(test_named),
		cmocka_unit_test(test_rights),   cmocka_unit_test(test_processes),
		cmocka_unit_test(test_outside),  cmocka_unit_test(test_unchanged),
		cmocka_unit_test(test_given_up),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
