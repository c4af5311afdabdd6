/* SPDX-License-Identifier: Apache-2.0 */
#include "service/msg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

int msg_send(int sock, const json_t *m, const int *fds, size_t n_fds, bool nowait)
{
	cleanup_free char *text = json_dumps(m, JSON_COMPACT);
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(MSG_MAX_FDS * sizeof(int))];
	} control = {0};

	if (!text || n_fds > MSG_MAX_FDS)
		return -EINVAL;
	struct iovec iov = {text, strlen(text)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (iov.iov_len > MSG_MAX_BYTES)
		return -EMSGSIZE;
	if (n_fds) {
		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&h);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	ssize_t r;

	do
		r = sendmsg(sock, &h, MSG_NOSIGNAL | (nowait ? MSG_DONTWAIT : 0));
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == ECONNRESET)
		return -EPIPE; /* gone without having read everything */
	return r < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *h, int *ret_fds)
{
	size_t have = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (ret_fds && have < MSG_MAX_FDS)
				ret_fds[have++] = fd;
			else
				close(fd);
		}
	}
}

int msg_recv(int sock, json_t **ret, int *ret_fds)
{
	cleanup_free char *buf = xmalloc(MSG_MAX_BYTES);
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(MSG_MAX_FDS * sizeof(int))];
	} control;
	struct iovec iov = {buf, MSG_MAX_BYTES};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control)};
	ssize_t n;

	for (size_t i = 0; ret_fds && i < MSG_MAX_FDS; i++)
		ret_fds[i] = -1;
	do
		n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR && !job_aborted());
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	take_fds(&h, ret_fds);
	if (n == 0)
		return 0;
	*ret = h.msg_flags & MSG_TRUNC ? NULL : json_loadb(buf, n, 0, NULL);
	if (!json_is_object(*ret)) {
		json_decref(*ret);
		*ret = NULL;
		if (ret_fds)
			msg_close_fds(ret_fds);
		return -EPROTO;
	}
	return 1;
}

void msg_close_fds(int *fds)
{
	for (size_t i = 0; i < MSG_MAX_FDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

/* Texts may hold bytes of foreign file names: what is not UTF-8 must not lose the message. */
static json_t *safe_string(const char *s)
{
	json_t *j = json_string(s);

	if (j)
		return j;
	cleanup_free char *copy = xstrdup(s);

	for (char *p = copy; *p; p++)
		if (*p & 0x80)
			*p = '?';
	return json_string(copy);
}

json_t *msg_error(const struct error *e)
{
	return json_pack("{s:i,s:o,s:s,s:o}", "code", e->code, "phase", safe_string(e->phase), "where",
			 e->where, "text", safe_string(e->text));
}

int msg_to_error(const json_t *m, struct error *e)
{
	int code = (int)msg_int(m, "code", 0);

	if (!code || error_is(e))
		return -e->code;
	error_phase(e, "%s", msg_str(m, "phase", ""));
	return error_say_at(e, msg_str(m, "where", "?"), code, "%s", msg_str(m, "text", "unknown failure"));
}

json_t *msg_result(const struct error *e)
{
	return json_pack("{s:o}", "result", msg_error(e));
}

const char *msg_str(const json_t *m, const char *key, const char *def)
{
	const char *s = json_string_value(json_object_get(m, key));

	return s ? s : def;
}

int64_t msg_int(const json_t *m, const char *key, int64_t def)
{
	const json_t *j = json_object_get(m, key);

	return json_is_integer(j) ? json_integer_value(j) : def;
}

double msg_num(const json_t *m, const char *key, double def)
{
	const json_t *j = json_object_get(m, key);

	return json_is_number(j) ? json_number_value(j) : def;
}
