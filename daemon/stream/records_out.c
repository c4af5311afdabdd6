/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/records.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "proto/image.pb-c.h"

#define OUT_BUFFER (1u << 20)

int record_out_init(struct record_out *o, int fd, const char *name, bool socket, struct error *e)
{
	*o = (struct record_out){.fd = fd, .name = name, .socket = socket};
	o->buf = malloc(OUT_BUFFER);
	if (!o->buf)
		return error_set(e, ENOMEM, "%s: buffer", name);
	return 0;
}

void record_out_deinit(struct record_out *o)
{
	free(o->buf);
	o->buf = NULL;
}

static int write_error(bool socket, const char *name, int code, struct error *e)
{
	if (code == EINTR)
		return error_say(e, ECANCELED, "%s: cancelled", name);
	if (socket && code == EAGAIN)
		return error_say(e, ETIMEDOUT, "%s: the peer takes no data (timed out)", name);
	return error_set(e, code, "%s: write", name);
}

static ssize_t write_some(int fd, bool socket, const struct iovec *iov, int n)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};

	return socket ? sendmsg(fd, &m, MSG_NOSIGNAL) : writev(fd, iov, n);
}

int stream_write(int fd, bool socket, const char *name, const struct iovec *iov, int n, struct error *e)
{
	struct iovec v[4];
	int i = 0;

	assert(n <= 4);
	memcpy(v, iov, n * sizeof(*v));
	while (i < n) {
		if (!v[i].iov_len) {
			i++;
			continue;
		}
		ssize_t r = write_some(fd, socket, v + i, n - i);

		if (r < 0 && errno == EINTR && !job_aborted())
			continue;
		if (r < 0)
			return write_error(socket, name, errno, e);
		for (size_t left = r; left;) {
			size_t part = MIN(left, v[i].iov_len);

			v[i].iov_base = (uint8_t *)v[i].iov_base + part;
			v[i].iov_len -= part;
			left -= part;
			i += !v[i].iov_len;
		}
	}
	return 0;
}

static int out_failed(struct record_out *o, int rc)
{
	if (rc < 0 && !o->failed)
		o->failed = -rc;
	return rc;
}

static int check_failed(const struct record_out *o, struct error *e)
{
	return o->failed ? error_set(e, o->failed, "%s: a write before this one failed", o->name) : 0;
}

static void buffer_add(struct record_out *o, const void *p, size_t n)
{
	if (n)
		memcpy(o->buf + o->used, p, n);
	o->used += n;
}

int record_out_put(struct record_out *o, const struct wire_record *in, const void *payload, size_t size,
		   const void *data, size_t data_size, struct error *e)
{
	struct wire_record h = *in;
	int rc = check_failed(o, e);

	if (rc < 0)
		return rc;
	h.magic = WIRE_MAGIC;
	h.version = STREAM_VERSION;
	h.reserved = 0;
	h.length = size;
	h.sequence = o->sequence;
	wire_swap_record(&h);
	uint64_t checksum = wire_checksum(&h, payload, size);

	h.checksum = htole64(checksum);
	if (o->used + sizeof(h) + size + data_size <= OUT_BUFFER) {
		buffer_add(o, &h, sizeof(h));
		buffer_add(o, payload, size);
		buffer_add(o, data, data_size);
	} else {
		struct iovec v[] = {{o->buf, o->used},
				    {&h, sizeof(h)},
				    {(void *)payload, size},
				    {(void *)data, data_size}};

		rc = out_failed(o, stream_write(o->fd, o->socket, o->name, v, 4, e));
		if (rc < 0)
			return rc;
		o->used = 0;
	}
	o->sequence++;
	o->records++;
	o->running = wire_running(o->running, checksum);
	o->bytes += sizeof(h) + size + data_size;
	return 0;
}

int record_out_header(struct record_out *o, const struct stream_header *h, struct error *e)
{
	struct wire_record r = {.type = FERRY__RECORD_TYPE__RECORD_HEADER};
	size_t parent = strlen(h->parent);
	struct wire_header w = {h->kind, WIRE_PAGE, h->flags, parent, {0}, {0}};
	uint8_t payload[sizeof(w) + WIRE_MAX_PARENT];

	memcpy(w.id, h->id, sizeof(w.id));
	memcpy(w.parent_id, h->parent_id, sizeof(w.parent_id));
	wire_swap_header(&w);
	memcpy(payload, &w, sizeof(w));
	memcpy(payload + sizeof(w), h->parent, parent);
	return record_out_put(o, &r, payload, sizeof(w) + parent, NULL, 0, e);
}

int record_out_trailer(struct record_out *o, uint64_t data_size, struct error *e)
{
	struct wire_record r = {.type = FERRY__RECORD_TYPE__RECORD_TRAILER};
	struct wire_trailer t = {o->records, o->running, data_size};

	wire_swap_trailer(&t);
	return record_out_put(o, &r, &t, sizeof(t), NULL, 0, e);
}

int record_out_flush(struct record_out *o, struct error *e)
{
	struct iovec v = {o->buf, o->used};
	int rc = check_failed(o, e);

	if (rc < 0)
		return rc;
	rc = out_failed(o, stream_write(o->fd, o->socket, o->name, &v, 1, e));
	if (rc == 0)
		o->used = 0;
	return rc;
}
