/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/answer.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define MAX_PAGES 512u /* in one request */

static bool is_zero(const uint8_t *page)
{
	const uint64_t *w = (const uint64_t *)page;

	return !w[0] && !memcmp(w, w + 1, PAGE_SIZE_BYTES - 8);
}

static int put(struct peer *p, pid_t pid, uint64_t addr, const uint8_t *data, size_t n, struct error *link)
{
	int r = 0;

	for (size_t i = 0, k; i < n && r >= 0; i += k) {
		bool zero = is_zero(data + i * PAGE_SIZE_BYTES);

		for (k = 1; i + k < n && is_zero(data + (i + k) * PAGE_SIZE_BYTES) == zero;)
			k++;
		struct page_run run = {.space = SPACE_PROCESS,
				       .id = (uint64_t)pid,
				       .addr = addr + i * PAGE_SIZE_BYTES,
				       .length = k * PAGE_SIZE_BYTES,
				       .flags = zero ? PAGE_RUN_ZERO : 0};

		r = stream_put_pages(p->out, &run, zero ? NULL : data + i * PAGE_SIZE_BYTES, link);
	}
	return r < 0 ? r : stream_flush(p->out, link);
}

/* 0; with @e: lost; other: the link. */
static int answer(const struct answerer *a, struct peer *p, const struct record *rec, uint8_t *buffer,
		  struct error *link, struct error *e)
{
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_want__descriptor, &m, link);

	if (r < 0)
		return r;
	uint64_t addr = ((Ferry__PeerWant *)m)->addr, n = ((Ferry__PeerWant *)m)->pages;

	protobuf_c_message_free_unpacked(m, NULL);
	if (!n || n > MAX_PAGES || addr % PAGE_SIZE_BYTES)
		r = -ENOENT;
	else
		r = a->read(a->ctx, rec->pid, addr, n * PAGE_SIZE_BYTES, buffer, e);
	if (r == -ENOENT && !error_is(e))
		return error_say(link, EPROTO, "the other side asked for %llu pages at 0x%llx of pid %d",
				 (unsigned long long)n, (unsigned long long)addr, rec->pid);
	return r < 0 ? r : put(p, rec->pid, addr, buffer, n, link);
}

static void progress(const struct answerer *a, const struct record *rec)
{
	struct error ignore = ERROR_INIT;
	ProtobufCMessage *msg;

	if (record_unpack(rec, &ferry__peer_progress__descriptor, &msg, &ignore) < 0)
		return;
	const Ferry__PeerProgress *m = (const Ferry__PeerProgress *)msg;

	events_emit(a->events,
		    json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:b}", "event", "fetch", "total",
			      (json_int_t)m->total, "left", (json_int_t)m->left, "arrived",
			      (json_int_t)m->arrived, "again", (json_int_t)m->again, "faults",
			      (json_int_t)m->faults, "zeros", (json_int_t)m->zeros, "p50_us", m->p50_ns / 1e3,
			      "p99_us", m->p99_ns / 1e3, "max_us", m->max_ns / 1e3, "link", 1));
	protobuf_c_message_free_unpacked(msg, NULL);
}

static int one_record(const struct answerer *a, struct peer *p, const struct record *rec, uint8_t *buffer,
		      struct error *link, struct error *e)
{
	if (rec->is_pages)
		return error_say(link, EPROTO, "the other side sent pages");
	switch (rec->type) {
	case FERRY__RECORD_TYPE__RECORD_PEER_WANT:
		return answer(a, p, rec, buffer, link, e);
	case FERRY__RECORD_TYPE__RECORD_PEER_PROGRESS:
		progress(a, rec);
		return 0;
	case FERRY__RECORD_TYPE__RECORD_PEER_ALL:
		progress(a, rec);
		return ANSWER_OVER;
	case FERRY__RECORD_TYPE__RECORD_PEER_ERROR:
		return peer_take_error(rec, link);
	default:
		return error_say(link, EPROTO, "the other side sent record %u where a request was due",
				 rec->type);
	}
}

int answer_wants(const struct answerer *a, struct peer *p, struct error *link, struct error *e)
{
	cleanup_free uint8_t *buffer = xmalloc(MAX_PAGES * PAGE_SIZE_BYTES);
	struct record rec;
	int r;

	/* Requests may follow so closely that no wait is ever interrupted. */
	while (job_check_abort(link) >= 0 && (r = stream_get(p->in, &rec, link)) > 0) {
		r = one_record(a, p, &rec, buffer, link, e);
		if (error_is(e))
			return -e->code;
		if (r == ANSWER_OVER)
			return r;
		if (r < 0)
			break;
	}
	if (!error_is(link))
		(void)error_say(link, EPIPE, "the other side ended the connection");
	return ANSWER_AGAIN;
}
