/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process for each lane, so that a thread that waits at the destination never waits for what is sent ahead.
 * The source always dials, again each second if need be; the destination asks.  Nothing is remembered here of
 * what was sent: who asks knows what is missing.
 */
#include "migrate/serve_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/util.h"
#include "migrate/answer.h"
#include "migrate/peer.h"

struct memory_of {
	pid_t pid;
	int fd; /* /proc/PID/mem */
};

struct server {
	const struct journal *j;
	const struct link_options *o;
	const struct events *events;
	int lane;
	struct memory_of *mem;
	size_t n_mem;
	struct link link;
	struct answerer answerer;
	struct peer peer;
	bool told_down;
};

static int open_memory(struct server *s, struct error *e)
{
	s->mem = xcalloc(s->j->n_procs + 1, sizeof(*s->mem));
	for (size_t i = 0; i < s->j->n_procs; i++) {
		cleanup_free char *path = xasprintf("/proc/%d/mem", s->j->procs[i].pid);
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return error_set(e, errno, "open %s", path);
		s->mem[s->n_mem++] = (struct memory_of){s->j->procs[i].pid, fd};
	}
	/* The numbers may belong to others by now. */
	if (journal_alive(s->j) < s->j->n_procs)
		return error_say(e, ESRCH,
				 "a process of the stopped original was killed: its pages are lost");
	return 0;
}

static int read_memory(void *ctx, pid_t pid, uint64_t addr, uint64_t length, void *data, struct error *e)
{
	const struct server *s = ctx;
	int fd = -1;

	for (size_t i = 0; i < s->n_mem; i++)
		if (s->mem[i].pid == pid)
			fd = s->mem[i].fd;
	if (fd < 0)
		return -ENOENT;
	return pread_full(fd, data, length, (off_t)addr) == 0
		       ? 0
		       : error_set(e, ESRCH, "pid %d: read %llu pages at 0x%llx of the stopped original", pid,
				   (unsigned long long)(length / PAGE_SIZE_BYTES), (unsigned long long)addr);
}

static void hang_up(struct server *s)
{
	peer_deinit(&s->peer);
	link_close(&s->link);
	s->link = (struct link)LINK_INIT;
}

/* --- connections --------------------------------------------------------------------------------------- */

static int begin(struct server *s, struct error *link)
{
	ProtobufCMessage *reply = NULL;
	int r = peer_expect(&s->peer, FERRY__RECORD_TYPE__RECORD_PEER_ANSWER, &ferry__peer_answer__descriptor,
			    &reply, link);

	if (r < 0)
		return r;
	const char *state = ((const Ferry__PeerAnswer *)reply)->state;

	if (!strcmp(state, "running"))
		r = ANSWER_OVER;
	else if (strcmp(state, "fetching"))
		r = error_say(link, EAGAIN, "%s says that the program is \"%s\" there", s->j->to, state);
	else
		r = ANSWER_AGAIN;
	protobuf_c_message_free_unpacked(reply, NULL);
	return r;
}

/* A new stream in our direction. */
static int renew(struct server *s, struct error *link)
{
	stream_out_free(s->peer.out);
	s->peer.out = NULL;
	return stream_out_socket(&s->peer.out, s->peer.sock, link);
}

static int dial(struct server *s, struct error *link)
{
	struct link_options mine = {.keys_dir = s->o->keys_dir, .insecure = s->o->insecure || s->j->insecure};
	Ferry__PeerPages pages = FERRY__PEER_PAGES__INIT;
	int r = link_connect(s->j->to, &mine, GRANT_RECEIVE, &s->link, link);

	if (r >= 0)
		r = peer_init(&s->peer, s->link.sock, link);
	if (r < 0)
		return r;
	peer_set_timeout(&s->peer, PEER_HELLO_SECS);
	pages.uuid = (char *)s->j->uuid;
	pages.lane = (Ferry__PeerLane)s->lane;
	r = peer_send(&s->peer, FERRY__RECORD_TYPE__RECORD_PEER_PAGES, &pages.base, link);
	if (r >= 0)
		r = begin(s, link);
	return r == ANSWER_AGAIN ? renew(s, link) : r;
}

/* The connection of the migration goes on as the first lane. */
static int go_on(struct server *s, struct error *link)
{
	int r = peer_init(&s->peer, s->link.sock, link);

	if (r < 0)
		return r;
	peer_set_timeout(&s->peer, PEER_HELLO_SECS);
	return begin(s, link);
}

static void tell_down(struct server *s, const char *why)
{
	if (s->told_down)
		return;
	s->told_down = true;
	events_log(s->events, 2, "the link to %s is broken, threads there may wait for pages: %s", s->j->to,
		   why);
	events_emit(s->events, json_pack("{s:s,s:b}", "event", "fetch", "link", 0));
}

/* To the end of it. */
static int serve_lane(struct server *s, struct error *e)
{
	for (;;) {
		struct error link = ERROR_INIT;
		int r = s->link.sock >= 0 ? go_on(s, &link) : dial(s, &link);

		if (r == ANSWER_AGAIN) {
			s->told_down = false;
			/* As long as nothing is asked: a dead peer shows by its keep-alive. */
			peer_set_timeout(&s->peer, 0);
			r = answer_wants(&s->answerer, &s->peer, &link, e);
		}
		if (error_is(e))
			peer_send_error(&s->peer, e);
		if (r == ANSWER_OVER) {
			hang_up(s);
			return 0;
		}
		hang_up(s);
		if (error_is(e))
			return -e->code;
		if (job_check_abort(e) < 0)
			return -ECANCELED;
		if (journal_alive(s->j) < s->j->n_procs)
			return error_say(e, ESRCH,
					 "a process of the stopped original was killed: its pages are lost");
		tell_down(s, link.text);
		sleep(1);
	}
}

/* --- both ---------------------------------------------------------------------------------------------- */

/* All the rest. It says nothing: what matters is told on the first lane. */
static pid_t start_second(const struct server *first)
{
	pid_t parent = getpid();

	fflush(NULL);
	pid_t pid = fork();

	if (pid)
		return pid;
	struct server s = *first;
	struct error e = ERROR_INIT;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	s.lane = 1;
	s.link = (struct link)LINK_INIT;
	s.peer = (struct peer){.sock = -1};
	s.events = s.answerer.events = NULL;
	s.answerer.ctx = &s;
	if (first->link.sock >= 0)
		close(first->link.sock);
	if (first->j->fd >= 0)
		close(first->j->fd);
	_exit(serve_lane(&s, &e) < 0);
}

static void end_second(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int serve_pages(const struct journal *j, struct link *link, const struct link_options *o,
		const struct events *ev, struct error *e)
{
	struct server s = {.j = j, .o = o, .events = ev, .link = *link, .peer = {.sock = -1}};

	*link = (struct link)LINK_INIT;
	error_phase(e, "serve pages");
	s.answerer = (struct answerer){.read = read_memory, .ctx = &s, .events = ev};
	int r = open_memory(&s, e);
	pid_t second = r < 0 ? -1 : start_second(&s);

	if (r >= 0)
		r = serve_lane(&s, e);
	else
		hang_up(&s);
	end_second(second);
	for (size_t i = 0; i < s.n_mem; i++)
		close(s.mem[i].fd);
	free(s.mem);
	return r;
}
