/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a session with a page server (docs/image-format.md, 7). The one thing that goes back to the
 * client is the ACK, at the end or as soon as something fails; so a client that sees anything to read while
 * it still sends knows that the session has failed.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"
#include "proto/image.pb-c.h"
#include "stream/out.h"

#define DRAIN_SECONDS 5

/* --- client ----------------------------------------------------------------------------------------------
 */

static int read_ack(struct stream_out *s, struct wire_ack *ret, struct error *e)
{
	struct record_in in;

	record_in_init(&in, s->map->fd, s->map->name, true);
	int rc = record_in_next(&in, e);

	if (rc < 0)
		goto out;
	rc = 0;
	if (in.h.type != FERRY__RECORD_TYPE__RECORD_ACK || in.h.length < sizeof(*ret)) {
		rc = record_in_fail(&in, EBADMSG, "an answer was expected", e);
		goto out;
	}
	memcpy(ret, in.payload, sizeof(*ret));
	wire_swap_ack(ret);
	if (ret->text_length != in.h.length - sizeof(*ret))
		rc = record_in_fail(&in, EBADMSG, "a text of another length", e);
	else if (ret->code)
		rc = error_say(e, ret->code > 0 && ret->code < 4096 ? (int)ret->code : EIO,
			       "page server: %.*s", (int)ret->text_length,
			       (const char *)in.payload + sizeof(*ret));
out:
	record_in_deinit(&in);
	return rc;
}

int page_server_poll(struct stream_out *s, struct error *e)
{
	struct pollfd p = {.fd = s->map->fd, .events = POLLIN};
	struct wire_ack ack;

	if (s->map->failed || poll(&p, 1, 0) <= 0)
		return 0;
	int rc = read_ack(s, &ack, e);

	if (rc == 0)
		rc = error_say(e, EPROTO, "page server: an answer before the end of the pages");
	s->map->failed = -rc;
	return rc;
}

int page_server_wait(struct stream_out *s, struct error *e)
{
	struct wire_ack ack;
	int rc = read_ack(s, &ack, e);

	if (rc < 0)
		return rc;
	/* The trailer is not counted. */
	if (ack.records != s->map->records - 1 || ack.data_size != s->map->data_size)
		return error_say(e, EBADMSG, "page server: it says it has %ju bytes of pages, %ju were sent",
				 (uintmax_t)ack.data_size, (uintmax_t)s->map->data_size);
	return 0;
}

/* --- server ----------------------------------------------------------------------------------------------
 */

static int send_ack(int sock, const struct record_in *in, uint64_t data_size, const struct error *why,
		    struct error *e)
{
	struct wire_record h = {.type = FERRY__RECORD_TYPE__RECORD_ACK};
	size_t text = error_is(why) ? MIN(strlen(why->text), WIRE_MAX_TEXT) : 0;
	struct wire_ack ack = {why->code, text, in->records, data_size};
	uint8_t payload[sizeof(ack) + WIRE_MAX_TEXT];
	struct record_out out;
	int rc = record_out_init(&out, sock, "connection", true, e);

	if (rc < 0)
		return rc;
	wire_swap_ack(&ack);
	memcpy(payload, &ack, sizeof(ack));
	memcpy(payload + sizeof(ack), why->text, text);
	rc = record_out_put(&out, &h, payload, sizeof(ack) + text, NULL, 0, e);
	if (rc == 0)
		rc = record_out_flush(&out, e);
	record_out_deinit(&out);
	return rc;
}

/* Closing a TCP socket with unread data resets the connection and may destroy the answer on its way. */
static void drain(int sock)
{
	struct timeval tv = {.tv_sec = 1};
	uint64_t end = now_ns() + DRAIN_SECONDS * 1000000000ull;
	cleanup_free char *buf = xmalloc(1 << 20);

	shutdown(sock, SHUT_WR);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while (now_ns() < end && !job_aborted() && recv(sock, buf, 1 << 20, 0) > 0)
		;
}

void page_server_refuse(int sock, const struct error *why)
{
	const struct record_in nothing = {0};
	struct error ignore = ERROR_INIT;

	send_ack(sock, &nothing, 0, why, &ignore);
	drain(sock);
}

static int serve_record(struct stream_out *s, struct record_in *in, struct wire_run *runs, uint8_t *data,
			struct error *e)
{
	size_t n;

	if (in->h.type >= WIRE_OPTIONAL)
		return 0;
	if (in->h.type != FERRY__RECORD_TYPE__RECORD_PAGES)
		return record_in_fail(in, EPROTO, "has no place in a session with a page server", e);
	uint64_t before = in->data_size;
	int rc = record_in_pages(in, runs, &n, data, e);

	for (size_t i = 0; i < n && rc == 0; i++)
		if (runs[i].flags & PAGE_RUN_COPY)
			rc = record_in_fail(in, EPROTO, "a copy has no place in an image", e);
		else if (run_has_data(runs[i].flags))
			rc = record_in_check_data(in, &runs[i], data + runs[i].offset, e);
	return rc < 0 ? rc : stream_emit_pages(s, runs, n, data, in->data_size - before, e);
}

static int serve(struct record_in *in, struct stream_out *s, int dirfd, struct error *e)
{
	struct stream_header h;
	int rc = record_in_header(in, WIRE_PAGE_SERVER, &h, e);

	if (rc < 0)
		return rc;
	memcpy(s->header.id, h.id, sizeof(h.id));
	if (*h.parent)
		rc = image_set_parent(dirfd, h.parent, &s->header, e);
	if (rc == 0)
		rc = stream_out_files(s, dirfd, false, e);
	if (rc < 0)
		return rc;
	cleanup_free struct wire_run *runs = xcalloc(WIRE_MAX_RUNS, sizeof(*runs));

	while ((rc = record_in_next(in, e)) > 0) {
		rc = serve_record(s, in, runs, s->pack.data, e);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : stream_finish(s, e);
}

int page_server_serve(int sock, int dirfd, uint64_t *ret_bytes, struct error *e)
{
	struct error ack_error = ERROR_INIT;
	struct record_in in;
	struct stream_out *s;
	int rc = stream_out_new(&s, e);

	if (rc < 0)
		return rc;
	record_in_init(&in, sock, "connection", true);
	rc = serve(&in, s, dirfd, e);
	uint64_t written = s->written;

	/* What is not finished goes before the client hears of it. */
	stream_out_free(s);
	int ack = send_ack(sock, &in, written, e, &ack_error);

	record_in_deinit(&in);
	if (rc < 0) {
		drain(sock);
		return rc;
	}
	if (ack < 0)
		return error_say(e, -ack, "the image is written, but the client could not be told: %s",
				 ack_error.text);
	*ret_bytes = written;
	return 0;
}
