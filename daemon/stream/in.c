/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/in.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "proto/image.pb-c.h"

struct stream_in *stream_in_new(struct error *e)
{
	struct stream_in *s = xcalloc(1, sizeof(*s));

	s->state_fd = -1;
	s->in.fd = -1;
	s->data = aligned_alloc(WIRE_PAGE, STREAM_MAX_RUN);
	if (!s->data) {
		error_set(e, ENOMEM, "buffer for page data");
		stream_in_free(s);
		return NULL;
	}
	return s;
}

int stream_in_dir(struct stream_in **ret, int dirfd, struct error *e)
{
	return image_in_open(ret, dirfd, 0, e);
}

int stream_in_chain(struct stream_in **ret, int dirfd, struct error *e)
{
	return image_in_open(ret, dirfd, IMAGE_CHAIN, e);
}

int stream_in_socket(struct stream_in **ret, int fd, struct error *e)
{
	struct stream_in *s = stream_in_new(e);

	if (!s)
		return -ENOMEM;
	s->socket = true;
	s->runs = xcalloc(WIRE_MAX_RUNS, sizeof(*s->runs));
	record_in_init(&s->in, fd, "connection", true);
	*ret = s;
	return 0;
}

void stream_in_state(const struct stream_in *s, struct record *ret)
{
	const struct wire_record *h = &s->in.h;

	*ret = (struct record){
		.type = h->type,
		.pid = h->pid,
		.tid = h->tid,
		.flags = h->flags,
		.payload = s->in.payload,
		.size = h->length,
	};
}

void stream_in_run(const struct wire_run *r, struct record *ret)
{
	*ret = (struct record){
		.is_pages = true,
		.type = FERRY__RECORD_TYPE__RECORD_PAGES,
		.run = {r->space, r->flags, r->id, r->addr, r->length,
			r->flags & (PAGE_RUN_SAME | PAGE_RUN_COPY) ? r->offset : 0},
		.checksum = r->flags & PAGE_RUN_COPY ? r->checksum : 0,
	};
}

static int next_socket_run(struct stream_in *s, struct record *ret, struct error *e)
{
	const struct wire_run *r = &s->runs[s->next_run];

	stream_in_run(r, ret);
	if (run_has_data(r->flags)) {
		int rc = record_in_check_data(&s->in, r, s->data + r->offset, e);

		if (rc < 0)
			return rc;
		ret->data = s->data + r->offset;
	}
	s->next_run++;
	return 1;
}

static int socket_get(struct stream_in *s, struct record *ret, struct error *e)
{
	int rc;

	if (!s->started) {
		rc = record_in_header(&s->in, WIRE_SOCKET, &s->header, e);
		if (rc < 0)
			return rc;
		s->started = true;
	}
	if (s->next_run < s->n_runs)
		return next_socket_run(s, ret, e);
	while ((rc = record_in_next(&s->in, e)) > 0) {
		uint32_t type = s->in.h.type;

		if (type == FERRY__RECORD_TYPE__RECORD_PAGES) {
			s->next_run = s->n_runs = 0;
			rc = record_in_pages(&s->in, s->runs, &s->n_runs, s->data, e);
			return rc < 0 ? rc : next_socket_run(s, ret, e);
		}
		if (type == FERRY__RECORD_TYPE__RECORD_ACK)
			return record_in_fail(&s->in, EPROTO, "has no place here", e);
		if (wire_type_name(type)) {
			stream_in_state(s, ret);
			return 1;
		}
	}
	return rc;
}

int stream_get(struct stream_in *s, struct record *ret, struct error *e)
{
	return s->socket ? socket_get(s, ret, e) : image_in_get(s, ret, e);
}

bool record_is_copy(const struct record *r, const void *data)
{
	return wire_data_checksum(data, r->run.length) == r->checksum;
}

bool stream_in_pending(const struct stream_in *s)
{
	return s->next_run < s->n_runs;
}

const char *stream_in_parent(const struct stream_in *s)
{
	return *s->header.parent ? s->header.parent : NULL;
}

int record_unpack(const struct record *r, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
		  struct error *e)
{
	const char *type = wire_type_name(r->type);
	ProtobufCMessage *m = r->is_pages ? NULL : protobuf_c_message_unpack(d, NULL, r->size, r->payload);

	if (!m)
		return error_say(e, EBADMSG, "record %s of pid %d, tid %d: %zu bytes that are no message %s",
				 type ? type : "of unknown type", r->pid, r->tid, r->size, d->name);
	*ret = m;
	return 0;
}

void stream_in_free(struct stream_in *s)
{
	if (!s)
		return;
	record_in_deinit(&s->in);
	image_in_deinit(s);
	free(s->runs);
	free(s->data);
	free(s);
}
