/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes from our end is cut into numbered chunks, each of which goes over whichever connection has room.
 * On a connection numbers only grow, so at the other end the next chunk is always the first one that is
 * waiting on some connection, or is still to come there: one chunk of each is kept, and nothing can get stuck
 * or pile up.  A number that cannot be, or an end in the middle, ends everything: what has come out until
 * then is a beginning of what went in.
 */
#include "migrate/bundle.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

#define MAGIC     0x4b4e4843u /* "CHNK" */
#define LINGER_MS 5000        /* after our end is closed: silence of the other side */

struct chunk_head {
	uint32_t magic;
	uint32_t length; /* 1 to BUNDLE_CHUNK */
	uint64_t number;
};
static_assert(sizeof(struct chunk_head) == 16, "head of a chunk");

struct half {
	uint8_t bytes[sizeof(struct chunk_head) + BUNDLE_CHUNK];
	size_t at, n; /* done so far; of so many */
};

struct connection {
	int fd;
	struct half out, in; /* n 0: none, or its head is not complete */
	uint64_t number;     /* of the chunk in @in */
	uint64_t least;      /* the next one has at least this number */
	bool whole;          /* @in is complete: @in.at counts what went on */
	bool ended;
};

struct bundle {
	struct connection *c;
	unsigned n, turn; /* who gets the next chunk, if it has room */
	int plain;
	uint64_t sent, next; /* numbers of the next chunks, out and in */
	bool up_ended, up_closed, down_closed, failed;
};

/* --- our end to the connections ------------------------------------------------------------------ */

static struct connection *with_room(struct bundle *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct connection *c = &b->c[(b->turn + i) % b->n];

		if (!c->out.n)
			return c;
	}
	return NULL;
}

/* 1: something happened; 0: not now. */
static int fill(struct bundle *b)
{
	struct connection *c = b->up_ended ? NULL : with_room(b);

	if (!c)
		return 0;
	ssize_t n = recv(b->plain, c->out.bytes + sizeof(struct chunk_head), BUNDLE_CHUNK, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return b->up_ended = true;
	struct chunk_head h = {htole32(MAGIC), htole32((uint32_t)n), htole64(b->sent++)};

	memcpy(c->out.bytes, &h, sizeof(h));
	c->out.at = 0;
	c->out.n = sizeof(h) + (size_t)n;
	b->turn = (unsigned)(c - b->c + 1) % b->n;
	return 1;
}

static int drain(struct bundle *b, struct connection *c)
{
	if (!c->out.n)
		return 0;
	ssize_t n = send(c->fd, c->out.bytes + c->out.at, c->out.n - c->out.at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0) {
		b->failed = true;
		return 1;
	}
	c->out.at += (size_t)n;
	if (c->out.at == c->out.n)
		c->out.n = 0;
	return 1;
}

static int pump_up(struct bundle *b)
{
	bool idle = true;
	int moved = 0;

	while (fill(b))
		moved = 1;
	for (unsigned i = 0; i < b->n; i++) {
		moved |= drain(b, &b->c[i]);
		idle &= !b->c[i].out.n;
	}
	if (!b->up_ended || b->up_closed || !idle)
		return moved;
	for (unsigned i = 0; i < b->n; i++)
		shutdown(b->c[i].fd, SHUT_WR);
	return b->up_closed = true;
}

/* --- the connections to our end ------------------------------------------------------------------ */

static bool take_head(struct bundle *b, struct connection *c)
{
	struct chunk_head h;

	memcpy(&h, c->in.bytes, sizeof(h));
	uint32_t length = le32toh(h.length);

	c->number = le64toh(h.number);
	if (le32toh(h.magic) != MAGIC || !length || length > BUNDLE_CHUNK || c->number < c->least ||
	    c->number < b->next)
		return false;
	c->least = c->number + 1;
	c->in.n = sizeof(h) + length;
	return true;
}

static int receive(struct bundle *b, struct connection *c)
{
	size_t head = sizeof(struct chunk_head), want = c->in.n ? c->in.n : head;

	if (c->ended || c->whole)
		return 0;
	ssize_t n = recv(c->fd, c->in.bytes + c->in.at, want - c->in.at, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		c->ended = true;
		b->failed |= n < 0 || c->in.at;
		return 1;
	}
	c->in.at += (size_t)n;
	if (c->in.at < want)
		return 1;
	if (!c->in.n) {
		b->failed |= !take_head(b, c);
	} else {
		c->whole = true;
		c->in.at = head;
	}
	return 1;
}

/* The next chunk, if this connection has it. */
static int pass_on(struct bundle *b, struct connection *c)
{
	if (!c->whole || c->number != b->next)
		return 0;
	ssize_t n = send(b->plain, c->in.bytes + c->in.at, c->in.n - c->in.at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	/* Nobody reads any more: swallow the rest, so that the other side can end in order. */
	c->in.at = n < 0 ? c->in.n : c->in.at + (size_t)n;
	if (c->in.at < c->in.n)
		return 1;
	c->whole = false;
	c->in.at = c->in.n = 0;
	b->next++;
	return 1;
}

static int pump_down(struct bundle *b)
{
	bool over = true, stuck = true;
	int moved = 0;

	for (unsigned i = 0; i < b->n; i++) {
		struct connection *c = &b->c[i];

		moved |= receive(b, c) | pass_on(b, c);
		over &= c->ended && !c->whole;
		stuck &= c->ended ? !c->whole || c->number != b->next : c->whole && c->number != b->next;
	}
	if (over && !b->down_closed) {
		shutdown(b->plain, SHUT_WR);
		return b->down_closed = true;
	}
	if (!moved && stuck && !over) /* a chunk is missing, and nobody can bring it any more */
		return b->failed = true;
	return moved;
}

/* --- the process --------------------------------------------------------------------------------- */

static void wait_for_any(struct bundle *b, bool *ret_over)
{
	struct pollfd p[BUNDLE_MAX + 1];
	bool to_plain = false;

	for (unsigned i = 0; i < b->n; i++) {
		struct connection *c = &b->c[i];
		short events = (short)((c->out.n ? POLLOUT : 0) | (!c->ended && !c->whole ? POLLIN : 0));

		to_plain |= c->whole && c->number == b->next;
		/* A descriptor of which nothing is wanted would still tell its end, again and again. */
		p[i] = (struct pollfd){events ? c->fd : -1, events, 0};
	}
	short events = (short)((!b->up_ended && with_room(b) ? POLLIN : 0) | (to_plain ? POLLOUT : 0));

	p[b->n] = (struct pollfd){events ? b->plain : -1, events, 0};
	*ret_over = poll(p, b->n + 1, b->up_closed ? LINGER_MS : -1) == 0;
}

static void run_bundle(struct bundle *b)
{
	bool over = false;

	while (!over && !b->failed && !(b->up_closed && b->down_closed)) {
		int moved = pump_up(b);

		if (!b->failed)
			moved |= pump_down(b);
		if (!moved)
			wait_for_any(b, &over);
	}
}

static bool is_ours(const struct bundle *b, int fd)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->c[i].fd == fd)
			return true;
	return fd == b->plain;
}

static void close_others(const struct bundle *b)
{
	int last = b->plain;

	for (unsigned i = 0; i < b->n; i++)
		last = MAX(last, b->c[i].fd);
	for (int fd = 3; fd < last; fd++)
		if (!is_ours(b, fd))
			close(fd);
	close_range((unsigned)last + 1, ~0u, 0);
}

static _Noreturn void bundle_main(const int *socks, unsigned n, int plain)
{
	struct bundle b = {.n = n, .plain = plain};

	b.c = xcalloc(n, sizeof(*b.c));
	for (unsigned i = 0; i < n; i++)
		b.c[i].fd = socks[i];
	close_others(&b);
	/* It ends when its connections do, and not before: signals are for the others. */
	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGCHLD)
			signal(sig, SIG_IGN);
	run_bundle(&b);
	_exit(0);
}

int bundle_start(const int *socks, unsigned n, pid_t *ret_pid, struct error *e)
{
	int pair[2], code = 0;
	pid_t pid = -1;

	if (n < 1 || n > BUNDLE_MAX)
		code = EINVAL;
	else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		code = errno;
	if (!code) {
		fflush(NULL);
		pid = fork();
		if (pid == 0)
			bundle_main(socks, n, pair[1]);
		code = pid < 0 ? errno : 0;
		close(pair[1]);
		if (code)
			close(pair[0]);
	}
	for (unsigned i = 0; i < n; i++)
		close(socks[i]);
	if (code)
		return error_set(e, code, "cannot join %u connections", n);
	*ret_pid = pid;
	return pair[0];
}
