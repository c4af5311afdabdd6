/* SPDX-License-Identifier: Apache-2.0 */
#include "service/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/util.h"
#include "service/job.h"
#include "service/msg.h"
#include "service/status.h"
#include "service/waiting.h"
#include "service/worker.h"

#define MAX_LISTENERS 8
#define END_MS        30000
#define HEIR_MS       2000 /* look for what the dead left behind */
#define SWEEP_MS      (6 * 3600 * 1000)

struct peer {
	struct worker worker;
	struct job_status status;
	struct applicant applicant;
	char name[80]; /* address and port */
};

struct daemon {
	const struct daemon_options *o;
	const int *listeners;
	size_t n_listeners;
	int control, signals;
	struct peer *peers; /* max_peers; worker.pid 0: free */
	size_t n_peers;
	struct waiting_room waiting;
	struct peer heir; /* sees to what the dead left behind */
	uint64_t looked, swept;
	uint64_t ending; /* since when; 0: not */
};

struct service { /* what a worker gets */
	const struct daemon_options *o;
	int sock;
};

static void say(const struct daemon *d, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void say(const struct daemon *d, int level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (level > d->o->log_level || !d->o->log)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	d->o->log(level, text);
}

/* --- a worker ----------------------------------------------------------------------------------- */

static int serve(void *ctx, int sock, const struct events *ev, struct error *e)
{
	struct service *s = ctx;
	struct admission_door door = {.sock = sock};
	struct serve_options o = s->o->serve_options;
	sigset_t none;

	o.admit = admission_wait;
	o.admit_ctx = &door;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return s->o->serve(s->sock, &o, ev, e);
}

static int inherit(void *ctx, int sock, const struct events *ev, struct error *e)
{
	struct service *s = ctx;

	(void)sock;
	return s->o->recover(&s->o->serve_options, ev, e);
}

#define MAX_OWN (MAX_LISTENERS + 5 + 1024 + WAITING_MAX)

/* Descriptors that a worker has no use for, ended by -1. */
static void own_fds(const struct daemon *d, int own[MAX_OWN])
{
	size_t n = 0;

	for (size_t i = 0; i < d->n_listeners; i++)
		own[n++] = d->listeners[i];
	own[n++] = d->signals;
	if (d->control >= 0)
		own[n++] = d->control;
	if (d->heir.worker.pid > 0) {
		own[n++] = d->heir.worker.sock;
		own[n++] = d->heir.worker.pidfd;
	}
	for (size_t i = 0; i < d->o->max_peers; i++) {
		const struct peer *p = &d->peers[i];

		if (p->worker.pid > 0 && n + 3 + WAITING_MAX < MAX_OWN) {
			own[n++] = p->worker.sock;
			own[n++] = p->worker.pidfd;
		}
	}
	for (size_t i = 0; i < d->waiting.n; i++)
		own[n++] = d->waiting.w[i].sock;
	own[n] = -1;
}

static void start_peer(struct daemon *d, int sock, const char *name)
{
	struct service s = {.o = d->o, .sock = sock};
	int own[MAX_OWN];
	struct peer *free_one = NULL;
	struct error e = ERROR_INIT;

	for (size_t i = 0; i < d->o->max_peers && !free_one; i++)
		if (d->peers[i].worker.pid <= 0)
			free_one = &d->peers[i];
	if (!free_one) {
		say(d, 2, "%s turned away: %u peers are being served", name, d->o->max_peers);
		return;
	}
	own_fds(d, own);
	*free_one = (struct peer){.worker = WORKER_INIT};
	snprintf(free_one->name, sizeof(free_one->name), "%s", name);
	status_init(&free_one->status, "receive", 0);
	if (worker_start(&free_one->worker, serve, &s, d->o->log_level, own, &e) < 0) {
		say(d, 1, "%s turned away: %s", name, e.text);
		free_one->worker.pid = 0;
		return;
	}
	d->n_peers++;
}

/* Migrations that nobody is at work on any more: at the start, and whenever one turns up. */
static void look_for_left(struct daemon *d)
{
	struct service s = {.o = d->o, .sock = -1};
	struct error e = ERROR_INIT;
	uint64_t now = now_ns();
	int own[MAX_OWN];

	if (!d->o->recover || d->ending || d->heir.worker.pid > 0 ||
	    (d->looked && now - d->looked < HEIR_MS * 1000000ull))
		return;
	bool sweep = !d->swept || now - d->swept > SWEEP_MS * 1000000ull;

	d->looked = now;
	if (!sweep && !d->o->recover_needed(&d->o->serve_options))
		return;
	d->swept = now;
	own_fds(d, own);
	d->heir = (struct peer){.worker = WORKER_INIT, .name = "recovery"};
	status_init(&d->heir.status, "resume", 0);
	if (worker_start(&d->heir.worker, inherit, &s, d->o->log_level, own, &e) < 0) {
		say(d, 1, "%s", e.text);
		d->heir.worker.pid = 0;
	}
}

/* --- the daemon --------------------------------------------------------------------------------- */

static void accept_peer(struct daemon *d, int listener)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char host[48] = "?", port[8] = "?", name[80];
	struct waiting gone;
	int sock = accept4(listener, (struct sockaddr *)&a, &len, SOCK_CLOEXEC);

	if (sock < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			usleep(100000); /* it would be reported again at once */
		return;
	}
	getnameinfo((struct sockaddr *)&a, len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(name, sizeof(name), "%s port %s", host, port);
	say(d, 3, "%s connected", name);
	waiting_add(&d->waiting, sock, name, &gone);
	if (gone.sock >= 0)
		say(d, 2, "%s turned away: it said nothing, and %d others wait", gone.name, WAITING_MAX);
}

/* @p: what poll said of the waiting room. Who speaks is served. */
static void hear(struct daemon *d, const struct pollfd *p, size_t n)
{
	uint64_t now = now_ns();

	for (size_t i = n; i-- > 0;) { /* from behind: taking one out moves those after it */
		if (!p[i].revents)
			continue;
		struct waiting w = waiting_take(&d->waiting, i);

		if (d->ending)
			say(d, 2, "%s turned away: ferryd ends", w.name);
		else
			start_peer(d, w.sock, w.name);
		close(w.sock);
	}
	while (waiting_left_ms(&d->waiting, d->o->first_byte_ms, now) == 0) {
		struct waiting w = waiting_take(&d->waiting, 0);

		say(d, 1, "%s said nothing for %d ms", w.name, d->o->first_byte_ms);
		close(w.sock);
	}
}

/* --- the queue ----------------------------------------------------------------------------------- */

static struct applicant *applicant(void *ctx, size_t i)
{
	struct daemon *d = ctx;

	return d->peers[i].worker.pid > 0 ? &d->peers[i].applicant : NULL;
}

static void tell(void *ctx, size_t i, unsigned position)
{
	struct daemon *d = ctx;
	struct peer *p = &d->peers[i];
	json_t *m = json_pack("{s:i}", "position", (int)position);

	msg_send(p->worker.sock, m, NULL, 0, true);
	json_decref(m);
	if (position)
		say(d, 3, "%s waits: number %u in the queue", p->name, position);
	m = json_pack("{s:s,s:i}", "event", position ? "queued" : "start", "position", (int)position);
	status_event(&p->status, m);
	json_decref(m);
}

static void update_queue(struct daemon *d)
{
	if (!d->ending)
		admission_update(&d->o->admission, applicant, d, d->o->max_peers, tell);
}

static void take_question(struct daemon *d, struct peer *p)
{
	if (admission_ask(&p->applicant, &d->o->admission, applicant, d, d->o->max_peers)) {
		update_queue(d);
		return;
	}
	cleanup_free char *text = xasprintf("%u migrations arrive already, and %u wait for them",
					    d->o->admission.running, d->o->admission.queued);
	json_t *m = json_pack("{s:s}", "refused", text);

	msg_send(p->worker.sock, m, NULL, 0, true);
	json_decref(m);
}

static void peer_result(struct daemon *d, struct peer *p, const json_t *result)
{
	struct error e = ERROR_INIT;

	if (msg_to_error(result, &e) < 0)
		say(d, e.code == ECANCELED ? 3 : 1, "%s: Error (%s): %s", p->name, e.where, e.text);
	else
		say(d, 3, "%s: done", p->name);
}

/* One message, if there is one. 0: no more. */
static int peer_message(struct daemon *d, struct peer *p)
{
	struct pollfd ready = {.fd = p->worker.sock, .events = POLLIN};
	json_t *m = NULL;

	if (poll(&ready, 1, 0) <= 0 || msg_recv(p->worker.sock, &m, NULL) != 1)
		return 0;
	const char *name = msg_str(m, "event", "");
	const json_t *result = json_object_get(m, "result");

	if (!strcmp(name, "asks")) {
		take_question(d, p);
		json_decref(m);
		return 1;
	}
	status_event(&p->status, m);
	if (!p->status.target)
		p->status.target = (pid_t)msg_int(m, "pid", 0);
	if (result)
		peer_result(d, p, result);
	else if (!strcmp(name, "log"))
		say(d, (int)msg_int(m, "level", 3), "%s: %s", p->name, msg_str(m, "text", ""));
	else {
		cleanup_free char *text = json_dumps(m, JSON_COMPACT | JSON_REAL_PRECISION(9));

		say(d, 4, "%s: %s", p->name, text ? text : name);
	}
	json_decref(m);
	return 1;
}

static void end_peer(struct daemon *d, struct peer *p, int status)
{
	while (peer_message(d, p))
		;
	if (WIFSIGNALED(status)) {
		say(d, 1, "%s: its worker was killed by signal %d", p->name, WTERMSIG(status));
		if (p != &d->heir)
			d->looked = 0; /* at once */
	}
	close(p->worker.sock);
	if (p->worker.pidfd >= 0)
		close(p->worker.pidfd);
	p->worker = (struct worker)WORKER_INIT;
	if (p != &d->heir) {
		d->n_peers--;
		update_queue(d);
	}
}

static void reap(struct daemon *d)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		size_t i = 0;

		while (i < d->o->max_peers && d->peers[i].worker.pid != pid)
			i++;
		if (i < d->o->max_peers)
			end_peer(d, &d->peers[i], status);
		else if (pid == d->heir.worker.pid)
			end_peer(d, &d->heir, status);
	}
}

static void begin_end(struct daemon *d)
{
	if (d->ending)
		return;
	d->ending = now_ns();
	for (size_t i = 0; i < d->o->max_peers; i++)
		if (d->peers[i].worker.pid > 0)
			worker_cancel(&d->peers[i].worker);
	worker_cancel(&d->heir.worker);
}

static json_t *status(const struct daemon *d)
{
	json_t *jobs = json_array();

	for (size_t i = 0; i < d->o->max_peers; i++) {
		if (d->peers[i].worker.pid <= 0)
			continue;
		json_t *j = status_json(&d->peers[i].status);

		json_object_set_new(j, "peer", json_string(d->peers[i].name));
		json_array_append_new(jobs, j);
	}
	return json_pack("{s:s,s:i,s:o}", "daemon", "ferryd", "pid", (int)getpid(), "jobs", jobs);
}

static bool is_named(const struct peer *p, const char *id)
{
	return p->worker.pid > 0 && strlen(id) >= 8 && !strncmp(p->status.uuid, id, strlen(id));
}

/* @m: what is no question of status. */
static void request(struct daemon *d, int sock, const json_t *m)
{
	const char *id = msg_str(m, "id", "");
	bool found = false;

	for (size_t i = 0; i < d->o->max_peers && !strcmp(msg_str(m, "op", ""), "cancel-migration"); i++)
		if (is_named(&d->peers[i], id)) {
			say(d, 2, "%s: migration %s is cancelled here", d->peers[i].name,
			    d->peers[i].status.uuid);
			worker_cancel(&d->peers[i].worker);
			found = true;
		}
	json_t *answer = json_pack("{s:b}", "cancelled", found);

	msg_send(sock, answer, NULL, 0, true);
	json_decref(answer);
}

static void answer_control(struct daemon *d)
{
	int sock = -1, fds[MSG_MAX_FDS];
	json_t *m = NULL;

	if (job_answer(d->control, status(d), &sock, &m, fds) != 2)
		return;
	request(d, sock, m);
	json_decref(m);
	msg_close_fds(fds);
	close(sock);
}

static void read_signals(struct daemon *d)
{
	struct signalfd_siginfo si;

	while (read(d->signals, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			reap(d);
		else
			begin_end(d);
	}
}

static int wait_ms(const struct daemon *d)
{
	int left = waiting_left_ms(&d->waiting, d->o->first_byte_ms, now_ns());

	if (d->ending)
		return 1000;
	if (!d->o->recover)
		return left;
	return left < 0 ? HEIR_MS : MIN(left, HEIR_MS);
}

static void once(struct daemon *d, struct pollfd *p)
{
	size_t n = 0;

	p[n++] = (struct pollfd){d->signals, POLLIN, 0};
	p[n++] = (struct pollfd){d->control, POLLIN, 0};
	for (size_t i = 0; i < d->n_listeners; i++)
		p[n++] = (struct pollfd){d->ending ? -1 : d->listeners[i], POLLIN, 0};
	for (size_t i = 0; i < d->o->max_peers; i++)
		p[n++] =
			(struct pollfd){d->peers[i].worker.pid > 0 ? d->peers[i].worker.sock : -1, POLLIN, 0};
	size_t rooms = n, waiting = waiting_poll(&d->waiting, p + n);

	n += waiting;
	p[n++] = (struct pollfd){d->heir.worker.pid > 0 ? d->heir.worker.sock : -1, POLLIN, 0};
	if (poll(p, n, wait_ms(d)) < 0)
		return;
	if (p[n - 1].revents && !peer_message(d, &d->heir))
		usleep(1000);
	for (size_t i = 0; i < d->o->max_peers; i++) {
		const struct pollfd *q = &p[2 + d->n_listeners + i];

		/* At the end of the socket its process is as good as reaped. */
		if (q->revents && d->peers[i].worker.sock == q->fd && !peer_message(d, &d->peers[i]))
			usleep(1000);
	}
	if (p[0].revents)
		read_signals(d);
	if (p[1].revents)
		answer_control(d);
	hear(d, p + rooms, waiting);
	for (size_t i = 0; i < d->n_listeners; i++)
		if (p[2 + i].revents && !d->ending)
			accept_peer(d, d->listeners[i]);
}

int daemon_run(const struct daemon_options *o, const int *listeners, size_t n, int control, struct error *e)
{
	struct daemon d = {.o = o, .listeners = listeners, .n_listeners = n, .control = control};
	sigset_t set;

	if (n > MAX_LISTENERS || o->max_peers > 500)
		return error_say(e, EINVAL, "too many sockets to listen at, or too many peers");
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d.signals < 0)
		return error_set(e, errno, "cannot make a signalfd");
	/* A peer may be gone again between poll and accept. */
	for (size_t i = 0; i < n; i++)
		fcntl(listeners[i], F_SETFL, fcntl(listeners[i], F_GETFL) | O_NONBLOCK);
	d.peers = xcalloc(o->max_peers, sizeof(*d.peers));
	cleanup_free struct pollfd *p = xcalloc(3 + n + o->max_peers + WAITING_MAX, sizeof(*p));

	while (!d.ending ||
	       ((d.n_peers || d.heir.worker.pid > 0) && now_ns() - d.ending < END_MS * 1000000ull)) {
		look_for_left(&d);
		once(&d, p);
	}
	while (d.waiting.n)
		close(waiting_take(&d.waiting, 0).sock);
	close(d.signals);
	free(d.peers);
	return 0;
}
