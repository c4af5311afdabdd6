/* SPDX-License-Identifier: Apache-2.0 */
#include "base/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

int net_split(const char *text, const char *def_host, const char *def_port, char **ret_host, char **ret_port,
	      struct error *e)
{
	const char *host = text, *port = NULL;
	size_t n = strlen(text);
	const char *colon = strchr(text, ':');

	if (*text == '[') {
		const char *end = strchr(text, ']');

		if (!end || (end[1] && end[1] != ':'))
			return error_say(e, EINVAL, "\"%s\" is not HOST, HOST:PORT or [ADDRESS]:PORT", text);
		host = text + 1;
		n = end - host;
		port = end[1] ? end + 2 : NULL;
	} else if (colon && !strchr(colon + 1, ':')) {
		n = colon - text;
		port = colon + 1;
	}
	if (port && (!*port || port[strspn(port, "0123456789")] || strlen(port) > 9 || atol(port) > 65535))
		return error_say(e, EINVAL, "\"%s\" is not a port number", port);
	*ret_host = n ? strndup(host, n) : def_host ? xstrdup(def_host) : NULL;
	*ret_port = xstrdup(port ? port : def_port);
	return 0;
}

static int resolve(const char *host, const char *port, int flags, struct addrinfo **ret, struct error *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
	int r = getaddrinfo(host, port, &hints, ret);

	return r ? error_say(e, EHOSTUNREACH, "the address %s cannot be found: %s", host ? host : "*",
			     gai_strerror(r))
		 : 0;
}

static int try_connect(const struct addrinfo *a, int timeout_ms)
{
	cleanup_close int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int code = 0, one = 1;
	socklen_t len = sizeof(code);

	if (fd < 0)
		return -errno;
	if (connect(fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
		return -errno;
	int r = poll(&p, 1, timeout_ms);

	if (r <= 0)
		return r == 0 ? -ETIMEDOUT : -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0 || code)
		return -(code ? code : errno);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	int flags = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	return TAKE_FD(fd);
}

int net_connect(const char *host, const char *port, int timeout_ms, struct error *e)
{
	struct addrinfo *all;
	int r = resolve(host, port, 0, &all, e);

	if (r < 0)
		return r;
	r = -EHOSTUNREACH;
	for (struct addrinfo *a = all; a && r < 0; a = a->ai_next)
		r = try_connect(a, timeout_ms);
	freeaddrinfo(all);
	return r < 0 ? error_set(e, -r, "cannot connect to %s port %s", host, port) : r;
}

int net_listen(const char *host, const char *port, struct error *e)
{
	struct addrinfo *all;
	int r = resolve(host, port, AI_PASSIVE, &all, e), one = 1;

	if (r < 0)
		return r;
	cleanup_close int fd = socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, all->ai_addr, all->ai_addrlen) < 0 || listen(fd, 4096) < 0)
		r = -errno;
	freeaddrinfo(all);
	return r < 0 ? error_set(e, -r, "cannot listen at %s port %s", host ? host : "*", port) : TAKE_FD(fd);
}

int net_port(int sock)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	if (getsockname(sock, (struct sockaddr *)&a, &len) < 0)
		return -errno;
	if (a.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)&a)->sin_port);
	return a.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&a)->sin6_port) : -EAFNOSUPPORT;
}

bool net_is_loopback(int sock)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	if (getsockname(sock, (struct sockaddr *)&a, &len) < 0)
		return false;
	if (a.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&a)->sin_addr.s_addr) >> 24 == 127;
	return a.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&a)->sin6_addr);
}
