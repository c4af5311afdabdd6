/* SPDX-License-Identifier: Apache-2.0 */
/* A process for each connection, so that a thread that waits never waits for what is sent ahead. */
#include "migrate/lazy_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/util.h"

#define MOST    64 /* connections */
#define LOOK_MS 200
#define OVER    0 /* exit codes of a connection's process */
#define AGAIN   1
#define FAILED  2

struct shared { /* with the processes of the connections */
	int begun;
	char text[sizeof(((struct error *)NULL)->text)];
};

/* --- one connection ------------------------------------------------------------------------------------ */

static int greet(const struct lazy_server *s, struct peer *p, struct error *link)
{
	Ferry__PeerAnswer a = FERRY__PEER_ANSWER__INIT;
	ProtobufCMessage *m = NULL;
	int r = peer_expect(p, FERRY__RECORD_TYPE__RECORD_PEER_PAGES, &ferry__peer_pages__descriptor, &m,
			    link);

	if (r < 0)
		return r;
	bool known = !strcmp(((const Ferry__PeerPages *)m)->uuid, s->uuid);

	protobuf_c_message_free_unpacked(m, NULL);
	if (known && s->begun)
		s->begun(s->ctx);
	a.state = (char *)(known ? "fetching" : "unknown");
	r = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_ANSWER, &a.base, link);
	if (r >= 0 && !known)
		r = error_say(link, ESTALE, "somebody asked for pages of another image");
	return r;
}

int lazy_serve_connection(const struct lazy_server *s, int sock, struct error *link, struct error *e)
{
	struct peer p;
	int r = peer_init(&p, sock, link);

	if (r < 0)
		return ANSWER_AGAIN;
	peer_set_timeout(&p, PEER_HELLO_SECS);
	r = greet(s, &p, link);
	peer_set_timeout(&p, 0);
	r = r < 0 ? ANSWER_AGAIN : answer_wants(&s->answerer, &p, link, e);
	if (error_is(e))
		peer_send_error(&p, e);
	peer_deinit(&p);
	return r;
}

struct child {
	const struct lazy_server *s;
	struct shared *shared;
};

static void note_begun(void *ctx)
{
	struct child *c = ctx;

	if (c->s->begun)
		c->s->begun(c->s->ctx);
	__atomic_store_n(&c->shared->begun, 1, __ATOMIC_SEQ_CST);
}

/* It is told why, if the link is there. */
static void refuse(struct link *l, const struct error *why)
{
	struct error ignore = ERROR_INIT;
	struct peer p;

	if (l->sock >= 0 && peer_init(&p, l->sock, &ignore) == 0) {
		peer_send_error(&p, why);
		peer_deinit(&p);
	}
	link_close(l);
}

static void warn_plain(const struct lazy_server *s, const struct link *l)
{
	if (l->beyond && !l->encrypted)
		events_log(s->answerer.events, 2, "the link is not encrypted (--insecure)");
}

static pid_t start(const struct lazy_server *s, struct shared *shared, int sock)
{
	pid_t parent = getpid();

	fflush(NULL);
	pid_t pid = fork();

	if (pid)
		return pid;
	struct child c = {s, shared};
	struct lazy_server mine = *s;
	struct error link = ERROR_INIT, e = ERROR_INIT;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(AGAIN);
	mine.begun = note_begun;
	mine.ctx = &c;
	struct link l;
	int r = link_accept(dup(sock), &s->link, GRANT_PAGE_SERVE, &l, &link);

	if (r < 0) {
		events_log(s->answerer.events, 2, "somebody who may not have pages: %s", link.text);
		refuse(&l, &link);
		_exit(AGAIN);
	}
	warn_plain(s, &l);
	close(sock); /* with a relay it must not be open here */
	r = lazy_serve_connection(&mine, l.sock, &link, &e);

	if (error_is(&e))
		memcpy(shared->text, e.text, sizeof(shared->text));
	else if (r == ANSWER_AGAIN)
		events_log(s->answerer.events, 3, "a connection for pages: %s", link.text);
	_exit(error_is(&e) ? FAILED : r == ANSWER_OVER ? OVER : AGAIN);
}

/* --- all of them --------------------------------------------------------------------------------------- */

struct children {
	pid_t pid[MOST];
	size_t n;
};

static void accept_one(const struct lazy_server *s, struct shared *shared, struct children *c)
{
	cleanup_close int sock = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	pid_t pid = sock < 0 || c->n == MOST ? -1 : start(s, shared, sock);

	if (pid > 0)
		c->pid[c->n++] = pid;
}

/* 1: one of them has heard that all is there; 0: none; -errno: one cannot go on. */
static int reap(struct children *c, const struct shared *shared, struct error *e)
{
	for (size_t i = c->n; i-- > 0;) {
		int status;

		if (waitpid(c->pid[i], &status, WNOHANG) != c->pid[i])
			continue;
		c->pid[i] = c->pid[--c->n];
		if (WIFEXITED(status) && WEXITSTATUS(status) == OVER)
			return 1;
		if (WIFEXITED(status) && WEXITSTATUS(status) == FAILED)
			return error_say(e, ESRCH, "%s", shared->text);
	}
	return 0;
}

static void end_all(struct children *c)
{
	for (size_t i = 0; i < c->n; i++)
		kill(c->pid[i], SIGKILL);
	for (size_t i = 0; i < c->n; i++)
		while (waitpid(c->pid[i], NULL, 0) < 0 && errno == EINTR)
			;
}

int lazy_serve(const struct lazy_server *s, bool *ret_begun, struct error *e)
{
	struct shared *shared =
		mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct children c = {.n = 0};
	int r = 0;

	error_phase(e, "serve pages");
	if (shared == MAP_FAILED)
		return error_set(e, errno, "make shared memory");
	while (r == 0) {
		struct pollfd p = {.fd = s->listener, .events = POLLIN};

		if (poll(&p, 1, LOOK_MS) > 0)
			accept_one(s, shared, &c);
		r = reap(&c, shared, e);
		if (r == 0)
			r = job_check_abort(e);
	}
	end_all(&c);
	*ret_begun = __atomic_load_n(&shared->begun, __ATOMIC_SEQ_CST);
	munmap(shared, sizeof(*shared));
	return MIN(r, 0);
}

/* --- the other end ------------------------------------------------------------------------------------- */

int lazy_ask(int sock, const char *uuid, int lane, struct peer *ret, struct error *e)
{
	Ferry__PeerPages pages = FERRY__PEER_PAGES__INIT;
	ProtobufCMessage *m = NULL;
	int r = peer_init(ret, sock, e);

	if (r < 0)
		return r;
	pages.uuid = (char *)uuid;
	pages.lane = (Ferry__PeerLane)lane;
	peer_set_timeout(ret, PEER_HELLO_SECS);
	r = peer_send(ret, FERRY__RECORD_TYPE__RECORD_PEER_PAGES, &pages.base, e);
	if (r >= 0)
		r = peer_expect(ret, FERRY__RECORD_TYPE__RECORD_PEER_ANSWER, &ferry__peer_answer__descriptor,
				&m, e);
	if (r >= 0 && strcmp(((const Ferry__PeerAnswer *)m)->state, "fetching"))
		r = error_say(e, ESTALE, "the pages that are served there belong to another image");
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
	if (r < 0)
		peer_deinit(ret);
	return r;
}

/* --- images -------------------------------------------------------------------------------------------- */

int lazy_read_image(void *ctx, pid_t pid, uint64_t addr, uint64_t length, void *data, struct error *e)
{
	return stream_in_read(ctx, (uint64_t)pid, addr, length, data, e);
}

char *lazy_image_uuid(int dirfd, struct error *e)
{
	struct stream_in *in = NULL;
	struct record rec;
	char *uuid = NULL;
	int r = stream_in_dir(&in, dirfd, e);

	while (r >= 0 && !uuid && (r = stream_get(in, &rec, e)) > 0 && !rec.is_pages) {
		ProtobufCMessage *m;

		if (rec.type != FERRY__RECORD_TYPE__RECORD_INVENTORY)
			continue;
		r = record_unpack(&rec, &ferry__inventory__descriptor, &m, e);
		if (r < 0)
			break;
		uuid = xstrdup(((const Ferry__Inventory *)m)->uuid);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	stream_in_free(in);
	if (!uuid && !error_is(e))
		(void)error_say(e, EBADMSG, "the image has no inventory");
	return uuid;
}
