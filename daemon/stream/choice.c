/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/choice.h"

#include "base/util.h"

#define WINDOW      (4u << 20) /* bytes on the wire after which the link is looked at; fewer tell little */
#define FAST_NS     1.0        /* per byte: below, nothing can be won */
#define SLOW_NS     2.0        /* per byte: a page takes 8 us */
#define MARGIN      1.2        /* by so much it must be better than sending it as it is */
#define UNPACK_PART 3          /* unpacking takes this part of the time of packing */
#define SAMPLE_PART 50         /* of the time may go into samples */

void choice_init(struct choice *c, enum compress_mode mode, unsigned known, uint64_t max_bandwidth)
{
	*c = (struct choice){
		.mode = mode, .known = known, .limit_ns = max_bandwidth ? 1e9 / (double)max_bandwidth : 0};
}

static bool may_use(const struct choice *c, enum codec codec)
{
	if (!(c->known & CODEC_BIT(codec)))
		return false;
	return c->mode == COMPRESS_AUTO || (c->mode == COMPRESS_LZ4 && codec == CODEC_LZ4) ||
	       (c->mode == COMPRESS_ZSTD && codec == CODEC_ZSTD);
}

/* The limit holds while rounds run. */
static double link_ns(const struct choice *c)
{
	return c->hurry ? c->link_ns : MAX(c->link_ns, c->limit_ns);
}

static double cost(const struct choice *c, const struct choice_seen *s)
{
	double wire = s->ratio * link_ns(c);

	if (c->hurry || c->round.wire < WINDOW)
		return s->cpu_ns + s->cpu_ns / UNPACK_PART + wire;
	return MAX(s->cpu_ns, wire);
}

enum codec choice_pick(const struct choice *c)
{
	enum codec best = CODEC_NONE;
	double least = link_ns(c) / MARGIN;

	for (enum codec i = CODEC_LZ4; i < CODECS; i++) {
		const struct choice_seen *s = &c->codec[i];

		if (!may_use(c, i))
			continue;
		if (c->mode != COMPRESS_AUTO && !c->hurry)
			return i;
		if (s->seen && cost(c, s) < least) {
			least = cost(c, s);
			best = i;
		}
	}
	return best;
}

enum codec choice_sample(const struct choice *c, uint64_t now)
{
	if (c->mode != COMPRESS_AUTO || c->hurry || link_ns(c) < FAST_NS)
		return CODEC_NONE;
	enum codec used = choice_pick(c), next = CODEC_NONE;

	for (enum codec i = CODEC_LZ4; i < CODECS; i++)
		if (i != used && may_use(c, i) && now >= c->codec[i].due &&
		    (!next || c->codec[i].due < c->codec[next].due))
			next = i;
	return next;
}

void choice_packed(struct choice *c, enum codec codec, uint64_t bytes, uint64_t packed, uint64_t ns,
		   bool sample, uint64_t now)
{
	struct choice_seen *s = &c->codec[codec];
	double cpu = (double)ns / (double)bytes, ratio = (double)MIN(packed, bytes) / (double)bytes;

	/* The last one counts for half: what memory holds changes from place to place. */
	s->cpu_ns = s->seen ? (s->cpu_ns + cpu) / 2 : cpu;
	s->ratio = s->seen ? (s->ratio + ratio) / 2 : ratio;
	s->seen = true;
	if (sample)
		s->due = now + SAMPLE_PART * ns;
}

static bool waited(const struct choice_flow *f)
{
	return f->waited_ns > f->elapsed_ns / 4 && (double)f->waited_ns > (double)f->wire * FAST_NS / 2;
}

static void add(struct choice_flow *f, uint64_t wire, uint64_t waited_ns, uint64_t elapsed_ns)
{
	f->wire += wire;
	f->waited_ns += waited_ns;
	f->elapsed_ns += elapsed_ns;
}

static double per_byte(const struct choice_flow *f)
{
	return (double)f->elapsed_ns / (double)f->wire;
}

void choice_sent(struct choice *c, uint64_t wire, uint64_t waited_ns, uint64_t elapsed_ns)
{
	struct choice_flow *w = &c->window;

	add(w, wire, waited_ns, elapsed_ns);
	add(&c->round, wire, waited_ns, elapsed_ns);
	if (w->wire < WINDOW)
		return;
	if (waited(w))
		c->link_ns = c->link_ns > 0 ? (c->link_ns + per_byte(w)) / 2 : per_byte(w);
	else if (per_byte(w) < c->link_ns) /* it is at least as fast as this */
		c->link_ns = per_byte(w);
	*w = (struct choice_flow){0};
}

/* What the buffers on the way swallow at once does not keep us waiting before the end: this is the better
 * measure. Of a short round, it would be one of other things. */
void choice_arrived(struct choice *c, uint64_t ns)
{
	struct choice_flow *r = &c->round;

	add(r, 0, ns, ns);
	if (r->wire >= WINDOW && (waited(r) || per_byte(r) < c->link_ns))
		c->link_ns = per_byte(r);
	c->long_round = r->wire >= WINDOW;
	c->window = c->round = (struct choice_flow){0};
}

/* A byte of page data, as it would go. */
static double cost_of(const struct choice *c)
{
	enum codec i = choice_pick(c);

	return i && c->codec[i].seen ? cost(c, &c->codec[i]) : link_ns(c);
}

double choice_stop_factor(const struct choice *c)
{
	struct choice in_round = *c, at_stop = *c;

	in_round.round.wire = c->long_round ? WINDOW : 0;
	at_stop.hurry = true;
	double now = cost_of(&in_round), then = cost_of(&at_stop);

	return now > 0 && then > now ? then / now : 1;
}

bool choice_link_is_slow(const struct choice *c)
{
	return link_ns(c) >= SLOW_NS;
}
