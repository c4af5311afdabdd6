/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose packets are held back at the source, from the freeze to the end: docs/tcp.md.
 *
 * When the program is about to run elsewhere, all of its connections are put into repair mode for good:
 * closed, they say nothing, neither an end nor a reset.
 */
#include "state/sockets/tcp_source.h"

#include <errno.h>
#include <linux/tcp.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "state/sockets/address.h"
#include "state/sockets/packets.h"

struct held {
	pid_t pid;
	int fd;
	int reuse; /* SO_REUSEADDR, which repair mode forgets */
};

struct tcp_source {
	struct hold *hold;
	struct packets *packets; /* NULL: what is dropped is lost */
	struct hold_tuple *tuples;
	struct held *held; /* a row each of tuples; fd -1: a listener */
	size_t n, cap, cap_held;
	struct index_map by_ino; /* those in effect */
	union inet_address *moved;
	size_t n_moved, cap_moved;
	char kept[TCP_HOLD_NAME];
	bool holding, parted;
};

void tcp_kept_name(char name[TCP_HOLD_NAME], const char *uuid)
{
	snprintf(name, TCP_HOLD_NAME, "ferry-kept-%s", uuid);
}

int tcp_gone(const char *uuid, struct error *e)
{
	char name[TCP_HOLD_NAME];

	tcp_kept_name(name, uuid);
	return hold_remove(name, e);
}

static int source_of(struct capture *c, struct tcp_source **ret, struct error *e)
{
	char text[37], name[TCP_HOLD_NAME];
	uuid_t u;

	*ret = c->tcp;
	if (c->tcp)
		return 0;
	uuid_generate(u);
	uuid_unparse_lower(u, text);
	snprintf(name, sizeof(name), "ferry-%s", text);
	struct tcp_source *t = xcalloc(1, sizeof(*t));
	struct error ignore = ERROR_INIT;
	uint16_t group = 0;

	/* Copies of packets are no condition. */
	if (packets_open(&t->packets, &group, &ignore) < 0 || hold_new(&t->hold, name, group, &ignore) < 0) {
		packets_free(TAKE_PTR(t->packets));
		int r = hold_new(&t->hold, name, 0, e);

		if (r < 0) {
			free(t);
			return r;
		}
	}
	tcp_kept_name(t->kept, text);
	*ret = c->tcp = t;
	return 0;
}

void tcp_capture_free(struct capture *c)
{
	struct tcp_source *t = c->tcp;

	if (!t)
		return;
	hold_free(t->hold);
	packets_free(t->packets);
	index_map_deinit(&t->by_ino);
	free(t->tuples);
	free(t->held);
	free(t->moved);
	free(t);
	c->tcp = NULL;
}

int tcp_source_name(struct capture *c, const char **ret, struct error *e)
{
	struct tcp_source *t;
	int r = source_of(c, &t, e);

	*ret = r < 0 ? NULL : t->kept;
	return r;
}

int tcp_get(int fd, int level, int name)
{
	int v = -1;
	socklen_t n = sizeof(v);

	return getsockopt(fd, level, name, &v, &n) < 0 ? -1 : v;
}

void tcp_set(int fd, int level, int name, int v)
{
	setsockopt(fd, level, name, &v, sizeof(v));
}

bool tcp_is_connected(const struct tcp_info *i)
{
	return i->tcpi_state == TCP_STATE_ESTABLISHED || i->tcpi_state == TCP_STATE_FIN_WAIT1 ||
	       i->tcpi_state == TCP_STATE_FIN_WAIT2 || i->tcpi_state == TCP_STATE_CLOSE_WAIT ||
	       i->tcpi_state == TCP_STATE_LAST_ACK || i->tcpi_state == TCP_STATE_CLOSING;
}

/* --- holding back --------------------------------------------------------------------------------------- */

static void set_end(const union inet_address *a, bool six, struct in6_addr *ret, uint16_t *ret_port)
{
	if (a->sa.sa_family == AF_INET) {
		memcpy(ret, &a->v4.sin_addr, 4);
		*ret_port = a->v4.sin_port;
		return;
	}
	if (six)
		*ret = a->v6.sin6_addr;
	else
		memcpy(ret, a->v6.sin6_addr.s6_addr + 12, 4);
	*ret_port = a->v6.sin6_port;
}

static bool is_six(const union inet_address *a)
{
	return a->sa.sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr);
}

void tcp_tuple(const union inet_address *local, const union inet_address *peer, struct hold_tuple *ret)
{
	*ret = (struct hold_tuple){.six = is_six(local)};
	set_end(local, ret->six, &ret->local, &ret->local_port);
	set_end(peer, ret->six, &ret->peer, &ret->peer_port);
}

static void note(struct tcp_source *t, const struct hold_tuple *tuple, uint64_t ino, struct held h)
{
	size_t n = t->n;

	FILES_GROW(t->tuples, n, t->cap);
	FILES_GROW(t->held, n, t->cap_held);
	t->tuples[n] = *tuple;
	t->held[n] = h;
	t->n++;
	t->holding = true;
	*index_map_at(&t->by_ino, ino, 0) = 1;
}

/* Take note of @copy if it is a connection, or a listener: who asks it now would get a connection that nobody
 * will know of. */
static void look_at(struct tcp_source *t, const struct ofd *o, int copy)
{
	union inet_address local = {0}, peer = {0};
	socklen_t n = sizeof(local), m = sizeof(peer), size = sizeof(struct tcp_info);
	struct tcp_info info = {0};
	struct hold_tuple tuple;
	struct held h = {o->pid, o->fd, tcp_get(copy, SOL_SOCKET, SO_REUSEADDR)};

	if (tcp_get(copy, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP ||
	    getsockopt(copy, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 || getsockname(copy, &local.sa, &n) < 0)
		return;
	if (info.tcpi_state == TCP_STATE_LISTEN)
		h.fd = -1;
	else if (!tcp_is_connected(&info) || getpeername(copy, &peer.sa, &m) < 0)
		return;
	tcp_tuple(&local, &peer, &tuple);
	note(t, &tuple, o->st.st_ino, h);
}

int tcp_hold(struct capture *c, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	struct tcp_source *t = c->tcp;
	int r = 0;

	/* Whether there are any showed when the target was running; one that is new is held by itself. */
	if (!t)
		return 0;
	size_t before = t->n;

	for (uint32_t i = 0; i < f->n && r >= 0; i++) {
		const struct ofd *o = &f->ofds[i];

		if (!S_ISSOCK(o->st.st_mode) || o->flags & O_PATH || o->extra >= 0 ||
		    index_map_find(&t->by_ino, o->st.st_ino, 0))
			continue;
		cleanup_close int copy = files_copy_of(c, o, e);

		r = copy < 0 ? copy : 0;
		if (r >= 0)
			look_at(t, o, copy);
	}
	return r < 0 ? r : hold_add(t->hold, t->tuples + before, t->n - before, e);
}

int tcp_hold_listener(struct capture *c, const struct ofd *o, int copy, struct error *e)
{
	struct tcp_source *t;
	int r = source_of(c, &t, e);

	if (r < 0 || index_map_find(&t->by_ino, o->st.st_ino, 0))
		return r;
	size_t before = t->n;

	look_at(t, o, copy);
	return hold_add(t->hold, t->tuples + before, t->n - before, e);
}

int tcp_hold_one(struct capture *c, struct fd_facts *f, const union inet_address *local,
		 const union inet_address *peer, struct error *e)
{
	struct tcp_source *t;
	int r = source_of(c, &t, e);

	if (r < 0 || index_map_find(&t->by_ino, f->st.st_ino, 0))
		return r;
	struct hold_tuple tuple;

	tcp_tuple(local, peer, &tuple);
	note(t, &tuple, f->st.st_ino,
	     (struct held){f->pid, f->fd, tcp_get(f->copy, SOL_SOCKET, SO_REUSEADDR)});
	return hold_add(t->hold, t->tuples + t->n - 1, 1, e);
}

int tcp_moves(struct capture *c, const union inet_address *local, struct error *e)
{
	struct tcp_source *t;
	int r = source_of(c, &t, e);

	if (r < 0)
		return r;
	FILES_GROW(t->moved, t->n_moved, t->cap_moved);
	t->moved[t->n_moved++] = *local;
	return 0;
}

void tcp_each_moving(struct capture *c, tcp_address_fn *each, void *ctx)
{
	const struct tcp_source *t = c->tcp;
	char text[INET_TEXT];

	for (size_t i = 0; t && i < t->n_moved; i++) {
		address_text(&t->moved[i], text, sizeof(text));
		each(ctx, text, text);
	}
}

/* --- the end -------------------------------------------------------------------------------------------- */

static int copy_of(struct capture *c, const struct held *h, struct error *e)
{
	struct ofd o = {.pid = h->pid, .fd = h->fd, .extra = -1};

	return files_copy_of(c, &o, e);
}

static int end_repair(struct capture *c, const struct tcp_source *t, size_t n, struct error *e)
{
	int first = 0, off = TCP_REPAIR_OFF_NO_WP;

	for (size_t i = 0; i < n; i++) {
		if (t->held[i].fd < 0)
			continue;
		cleanup_close int copy = copy_of(c, &t->held[i], e);
		int r = copy < 0 ? copy : 0;

		if (r >= 0 && setsockopt(copy, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0)
			r = error_set(e, errno, "pid %d fd %d: ending the repair of its TCP connection",
				      t->held[i].pid, t->held[i].fd);
		if (r >= 0)
			tcp_set(copy, SOL_SOCKET, SO_REUSEADDR, t->held[i].reuse);
		first = first < 0 ? first : r;
	}
	return first;
}

static void drop_listeners(struct tcp_source *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++)
		if (t->held[i].fd >= 0) {
			t->tuples[n] = t->tuples[i];
			t->held[n++] = t->held[i];
		}
	t->n = n;
}

int tcp_keep(struct capture *c, const char *kept, struct error *e)
{
	struct tcp_source *t = c->tcp;

	if (!t || !t->n)
		return 0;
	if (kept)
		snprintf(t->kept, sizeof(t->kept), "%s", kept);
	else
		drop_listeners(t); /* who asks while there is only an image may as well be refused */
	if (!t->n)
		return 0;
	rescue_note_repair(t->kept);
	int r = hold_keep(t->hold, t->kept, t->tuples, t->n, e);

	t->parted = r >= 0;
	if (r < 0)
		rescue_note_repair(NULL);
	return r;
}

int tcp_silence(struct capture *c, struct error *e)
{
	struct tcp_source *t = c->tcp;
	int on = TCP_REPAIR_ON, first = 0;

	for (size_t i = 0; t && t->parted && i < t->n; i++) {
		if (t->held[i].fd < 0)
			continue;
		cleanup_close int copy = copy_of(c, &t->held[i], e);
		int r = copy < 0 ? copy : 0;

		if (r >= 0 && setsockopt(copy, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
			r = error_set(e, errno, "pid %d fd %d: beginning the repair of its TCP connection",
				      t->held[i].pid, t->held[i].fd);
		first = first < 0 ? first : r;
	}
	return first;
}

/* It goes on here: what has come meanwhile comes now. */
static void hand_in(struct capture *c, struct tcp_source *t)
{
	struct packets_raw raw = PACKETS_RAW_INIT;
	ProtobufCBinaryData *list = NULL;
	size_t n = 0;

	packets_take(t->packets, &list, &n);
	if (n) {
		size_t done = packets_put(&raw, list, n, t->tuples, t->n);

		events_log(c->events, 3, "%zu of %zu packets that came meanwhile handed in", done, n);
	}
	packets_raw_close(&raw);
	for (size_t i = 0; i < n; i++)
		free(list[i].data);
	free(list);
}

int tcp_undo(struct capture *c, struct error *e)
{
	struct tcp_source *t = c->tcp;
	int r = 0;

	if (!t || !t->holding)
		return 0;
	if (t->parted) {
		int kept = hold_remove_kept(t->hold, t->kept, e);

		r = end_repair(c, t, t->n, e);
		r = r < 0 ? r : kept;
		rescue_note_repair(NULL);
	}
	int clear = hold_clear(t->hold, e);

	if (clear >= 0)
		hand_in(c, t);
	t->n = 0;
	t->parted = t->holding = false;
	index_map_deinit(&t->by_ino);
	return r < 0 ? r : clear;
}

void tcp_take_packets(struct capture *c, ProtobufCBinaryData **list, size_t *n)
{
	struct tcp_source *t = c->tcp;

	if (t)
		packets_take(t->packets, list, n);
}

bool tcp_has_packets(const struct capture *c)
{
	return c->tcp != NULL;
}

void tcp_forsake(struct capture *c)
{
	struct tcp_source *t = c->tcp;

	if (t)
		t->holding = false;
}
