/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips of TCP and UDP sockets, in a network namespace of the test's own. */
#include "../files/fixture.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static struct sockaddr_in v4(uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static struct sockaddr_in6 v6(uint16_t port)
{
	return (struct sockaddr_in6){
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
}

static void set(int fd, int level, int name, int value)
{
	MUST(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
}

static int get(int fd, int level, int name)
{
	int value = -1;
	socklen_t n = sizeof(value);

	MUST(getsockopt(fd, level, name, &value, &n) == 0);
	return value;
}

static void sockets_setup(int k)
{
	struct sockaddr_in a = v4(4001);
	struct sockaddr_in6 b = v6(4002);

	(void)k;
	MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) == 0);
	set(0, SOL_SOCKET, SO_REUSEADDR, 1);
	set(0, SOL_SOCKET, SO_RCVBUF, 300000);
	set(0, SOL_TCP, TCP_NODELAY, 1);
	set(0, SOL_TCP, TCP_DEFER_ACCEPT, 3);
	MUST(bind(0, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(0, 77) == 0 &&
	     fcntl(0, F_SETFL, O_NONBLOCK) == 0);
	MUST(socket(AF_INET6, SOCK_STREAM, 0) == 1);
	set(1, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	set(1, SOL_SOCKET, SO_REUSEPORT, 1);
	MUST(bind(1, (struct sockaddr *)&b, sizeof(b)) == 0 && listen(1, 5) == 0);
	MUST(socket(AF_INET6, SOCK_STREAM, 0) == 2);
	set(2, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	set(2, SOL_SOCKET, SO_REUSEPORT, 1);
	MUST(bind(2, (struct sockaddr *)&b, sizeof(b)) == 0 && listen(2, 5) == 0);
	MUST(socket(AF_INET, SOCK_DGRAM, 0) == 3);
	a = v4(4003);
	set(3, SOL_SOCKET, SO_BROADCAST, 1);
	set(3, SOL_IP, IP_TTL, 9);
	MUST(bind(3, (struct sockaddr *)&a, sizeof(a)) == 0);
	MUST(socket(AF_INET, SOCK_DGRAM, 0) == 4 && connect(4, (struct sockaddr *)&a, sizeof(a)) == 0);
	MUST(socket(AF_INET, SOCK_STREAM, 0) == 5);
	set(5, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(5, SOL_TCP, TCP_KEEPIDLE, 42);
	struct linger l = {1, 7};
	struct timeval t = {3, 0};

	MUST(setsockopt(5, SOL_SOCKET, SO_LINGER, &l, sizeof(l)) == 0);
	MUST(setsockopt(5, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) == 0);
	struct sock_filter accept_all[] = {BPF_STMT(BPF_RET | BPF_K, 0xffff)};
	struct sock_fprog p = {1, accept_all};

	MUST(setsockopt(3, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p)) == 0);
	a = v4(4004);
	MUST(socket(AF_INET, SOCK_STREAM, 0) == 6 &&
	     bind(6, (struct sockaddr *)&a, sizeof(a)) == 0); /* bound, no more */
}

static void sockets_verify(int k)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);
	struct tcp_info info;

	(void)k;
	MUST(get(0, SOL_SOCKET, SO_ACCEPTCONN) == 1 && get(0, SOL_SOCKET, SO_REUSEADDR) == 1 &&
	     fcntl(0, F_GETFD) & FD_CLOEXEC);
	MUST(get(0, SOL_SOCKET, SO_RCVBUF) == 600000 && get(0, SOL_TCP, TCP_NODELAY) == 1 &&
	     get(0, SOL_TCP, TCP_DEFER_ACCEPT) > 0);
	MUST(fcntl(0, F_GETFL) == (O_RDWR | O_NONBLOCK));
	n = sizeof(info);
	MUST(getsockopt(0, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 && info.tcpi_sacked == 77);
	n = sizeof(a);
	MUST(getsockname(0, (struct sockaddr *)&a, &n) == 0 && ntohs(a.sin_port) == 4001 &&
	     a.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	for (int fd = 1; fd <= 2; fd++)
		MUST(get(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 && get(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1 &&
		     get(fd, SOL_SOCKET, SO_REUSEPORT) == 1);
	MUST(get(1, SOL_SOCKET, SO_REUSEADDR) == 0);
	struct sockaddr_in6 b = v6(4002);

	MUST(socket(AF_INET6, SOCK_STREAM, 0) == 7);
	b.sin6_addr = in6addr_loopback;
	MUST(connect(7, (struct sockaddr *)&b, sizeof(b)) == 0);
	char text[8];

	MUST(get(3, SOL_SOCKET, SO_BROADCAST) == 1 && get(3, SOL_IP, IP_TTL) == 9);
	MUST(send(4, "udp", 3, 0) == 3 && recv(3, text, 8, 0) == 3);
	n = 0;
	MUST(getsockopt(3, SOL_SOCKET, SO_GET_FILTER, NULL, &n) == 0 && n == 1);
	MUST(get(5, SOL_SOCKET, SO_KEEPALIVE) == 1 && get(5, SOL_TCP, TCP_KEEPIDLE) == 42);
	struct linger l;
	struct timeval t;

	n = sizeof(l);
	MUST(getsockopt(5, SOL_SOCKET, SO_LINGER, &l, &n) == 0 && l.l_onoff && l.l_linger == 7);
	n = sizeof(t);
	MUST(getsockopt(5, SOL_SOCKET, SO_RCVTIMEO, &t, &n) == 0 && t.tv_sec == 3);
	n = sizeof(a);
	MUST(getsockname(6, (struct sockaddr *)&a, &n) == 0 && ntohs(a.sin_port) == 4004 &&
	     listen(6, 1) == 0);
}

static void test_sockets(void **state)
{
	(void)state;
	round_trip(&(struct scenario){sockets_setup, sockets_verify, 1, {0}});
}

static void connected_setup(int k)
{
	struct sockaddr_in a = v4(4010);
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 5};

	(void)k;
	MUST(socket(AF_INET, SOCK_STREAM, 0) == 0);
	set(0, SOL_SOCKET, SO_REUSEADDR, 1);
	MUST(bind(0, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(0, 5) == 0);
	MUST(socket(AF_INET, SOCK_STREAM, 0) == 1 && connect(1, (struct sockaddr *)&a, sizeof(a)) == 0);
	MUST(accept(0, NULL, NULL) == 2);
	set(2, SOL_TCP, TCP_NODELAY, 1);
	MUST(epoll_create1(0) == 3 && epoll_ctl(3, EPOLL_CTL_ADD, 2, &e) == 0);
	MUST(socket(AF_INET, SOCK_STREAM, 0) == 4 && connect(4, (struct sockaddr *)&a, sizeof(a)) == 0);
}

static void connected_verify(int k)
{
	struct epoll_event e;
	char text[4];

	(void)k;
	MUST(epoll_wait(3, &e, 1, 0) == 1 && e.data.u64 == 5 && e.events & EPOLLHUP);
	MUST(read(2, text, 4) == -1 && errno == ENOTCONN && get(2, SOL_TCP, TCP_NODELAY) == 1);
	MUST(read(1, text, 4) == -1 && errno == ENOTCONN);
	struct sockaddr_in a = v4(4010);

	MUST(connect(1, (struct sockaddr *)&a, sizeof(a)) == 0 && accept(0, NULL, NULL) == 5);
}

static void test_connected(void **state)
{
	(void)state;
	refused(&(struct scenario){connected_setup, NULL, 1, {0}}, 1,
		"-> 127.0.0.1:4010; --tcp-established takes it along, --tcp-close closes it");
	round_trip(&(struct scenario){connected_setup, connected_verify, 1, {.tcp_close = true}});
}

/* Somebody else has the port: found before anything is made. */
static void test_taken(void **state)
{
	(void)state;
	struct fixture x;

	start(&x, &(struct scenario){sockets_setup, NULL, 1, {0}});
	assert_int_equal(capture(&x), 0);
	stop(&x);
	ProtobufCMessage *m = snapshot_find(&x.snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = v4(4001);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	listen(fd, 1);
	assert_true(kind_files.check(&x.r, 0, 0, m, &x.e) < 0);
	assert_non_null(strstr(x.e.text, "TCP socket to 127.0.0.1:4001"));
	close(fd);
	error_clear(&x.e);
	assert_int_equal(kind_files.check(&x.r, 0, 0, m, &x.e), 0);
	files_rebuild_free(&x.r, false);
	finish(&x);
}

static int set_up(void **state)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};

	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int r = ioctl(fd, SIOCSIFFLAGS, &lo);

	close(fd);
	return r || make_shared(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_connected),
		cmocka_unit_test(test_taken),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
