/* SPDX-License-Identifier: Apache-2.0 */
/* Page data on their way to a socket: packed where that pays, which choice.c decides by what is measured
 * here. */
#include <stddef.h>
#include <stdlib.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "stream/out.h"

#define LEAST_GAIN 16 /* what gets smaller by less than this part goes as it is */

void packing_deinit(struct packing *p)
{
	codec_state_free(p->codec);
	free(p->packed);
}

/* Bytes in p->packed; 0: it goes as it is. */
static size_t pack(struct packing *p, enum codec c, const void *data, size_t size, bool sample)
{
	uint64_t t0 = now_ns();
	size_t n = codec_pack(&p->codec, c, data, size, p->packed, size - size / LEAST_GAIN);
	uint64_t t1 = now_ns();

	choice_packed(&p->choice, c, size, n ? n : size, t1 - t0, sample, t1);
	return n;
}

static void try_others(struct packing *p, const void *data, size_t size)
{
	enum codec c = choice_sample(&p->choice, now_ns());

	if (c)
		pack(p, c, data, MIN(size, CHOICE_SAMPLE), true);
}

static int put(struct stream_out *s, const struct wire_record *h, const uint8_t *table, size_t table_size,
	       const void *data, size_t size, struct error *e)
{
	struct packing *p = &s->packing;
	uint64_t t0 = now_ns(), busy = thread_ns(), since = p->last ? p->last : t0;
	int rc = record_out_put(s->map, h, table, table_size, data, size, e);

	p->last = now_ns();
	busy = MIN(thread_ns() - busy, p->last - t0);
	choice_sent(&p->choice, table_size + size, p->last - t0 - busy, p->last - since);
	return rc;
}

int stream_put_data(struct stream_out *s, const struct wire_record *h, uint8_t *table, size_t table_size,
		    const void *data, size_t size, struct error *e)
{
	struct packing *p = &s->packing;
	struct wire_record packed_h = *h;
	enum codec c = CODEC_NONE;
	size_t packed = 0;

	if (p->packed) {
		try_others(p, data, size);
		c = choice_pick(&p->choice);
	}
	if (c)
		packed = pack(p, c, data, size, false);
	if (packed) {
		uint32_t length = htole32((uint32_t)packed);

		memcpy(table + offsetof(struct wire_pages, packed), &length, sizeof(length));
		packed_h.flags |= wire_codec_flag(c);
	}
	int rc = put(s, &packed_h, table, table_size, packed ? p->packed : data, packed ? packed : size, e);

	if (rc < 0)
		return rc;
	s->map->data_size += size;
	p->flow.pages += size;
	p->flow.wire += packed ? packed : size;
	p->flow.by[packed ? c : CODEC_NONE] += size;
	return 0;
}

void stream_out_compress(struct stream_out *s, enum compress_mode mode, unsigned known,
			 uint64_t max_bandwidth)
{
	choice_init(&s->packing.choice, mode, known & CODECS_KNOWN, max_bandwidth);
	if (mode != COMPRESS_NONE && (known & CODECS_KNOWN) && !s->packing.packed)
		s->packing.packed = xmalloc(STREAM_MAX_RUN);
}

void stream_out_hurry(struct stream_out *s)
{
	s->packing.choice.hurry = true;
}

void stream_out_arrived(struct stream_out *s)
{
	struct packing *p = &s->packing;

	if (p->last)
		choice_arrived(&p->choice, now_ns() - p->last);
	p->last = 0;
}

double stream_out_stop_factor(const struct stream_out *s)
{
	return choice_stop_factor(&s->packing.choice);
}

bool stream_out_is_slow(const struct stream_out *s)
{
	return s->map->socket && choice_link_is_slow(&s->packing.choice);
}

bool stream_out_is_over(const struct stream_out *s, uint64_t wait_ns)
{
	struct pollfd p = {.fd = s->map->socket ? s->map->fd : -1, .events = POLLRDHUP};
	struct timespec ts = {(time_t)(wait_ns / 1000000000), (long)(wait_ns % 1000000000)};

	return ppoll(&p, 1, &ts, NULL) > 0;
}

void stream_out_allow_copies(struct stream_out *s)
{
	s->copies = s->map->socket && !s->page_server;
}

bool stream_out_wants_copies(const struct stream_out *s)
{
	return s->copies && stream_out_is_slow(s);
}

void stream_out_flow(const struct stream_out *s, struct stream_flow *ret)
{
	*ret = s->packing.flow;
}
