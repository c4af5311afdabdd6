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
#include "engine/allowance.h"
#include "service/msg.h"
#include "service/peers.h"

#define END_MS   30000
#define HEIR_MS  2000 /* look for what the dead left behind */
#define SWEEP_MS (6 * 3600 * 1000)

struct service { /* what a worker gets */
	const struct daemon_options *o;
	int sock;
	size_t slot; /* its place among the peers */
	const char *name;
};

static void write_log(const struct daemon *d, int level, const struct log_about *about, const char *name,
		      const char *fmt, va_list ap)
{
	char text[1024];
	int n = snprintf(text, sizeof(text), "%s%s", name, *name ? ": " : "");

	if (level > d->o->log_level || !d->o->log)
		return;
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	d->o->log(level, text, about);
}

void daemon_say(const struct daemon *d, int level, const char *fmt, ...)
{
	static const struct log_about nobody = {0};
	va_list ap;

	va_start(ap, fmt);
	write_log(d, level, &nobody, "", fmt, ap);
	va_end(ap);
}

void daemon_say_of(const struct daemon *d, const struct peer *p, int level, const char *fmt, ...)
{
	const struct log_about about = {p->name, p->status.uuid, p->status.target};
	va_list ap;

	va_start(ap, fmt);
	write_log(d, level, &about, p->name, fmt, ap);
	va_end(ap);
}

static void count_refusal(struct daemon *d, enum metrics_refusal why)
{
	if (d->o->monitor)
		monitor_metrics(d->o->monitor)->refused[why]++;
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
	o.limits.slot = s->slot;
	snprintf(o.address, sizeof(o.address), "%.*s", (int)strcspn(s->name, " "), s->name);
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

#define MAX_OWN (MAX_LISTENERS + 5 + 1024 + WAITING_MAX + MONITOR_MAX + ERRANDS_MAX)

/* Descriptors that a worker has no use for, ended by -1. */
static void own_fds(const struct daemon *d, int own[MAX_OWN])
{
	struct pollfd p[MONITOR_MAX];
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
		const struct worker *w = &d->peers[i].worker;

		if (w->pid > 0 && n + 3 + WAITING_MAX + MONITOR_MAX + ERRANDS_MAX < MAX_OWN) {
			own[n++] = w->sock;
			own[n++] = w->pidfd;
		}
	}
	for (size_t i = 0; i < d->waiting.n; i++)
		own[n++] = d->waiting.w[i].sock;
	for (size_t i = 0, k = monitor_poll(d->o->monitor, p); i < k; i++)
		if (p[i].fd >= 0)
			own[n++] = p[i].fd;
	for (size_t i = 0; i < ERRANDS_MAX; i++)
		if (d->errands[i].sock >= 0)
			own[n++] = d->errands[i].sock;
	own[n] = -1;
}

/* Has its host as many connections as one may have? This one itself does not count. */
static bool is_crowding(const struct daemon *d, const char *name)
{
	size_t host = (size_t)(strstr(name, " port ") - name) + 1;
	unsigned n = 0;

	if (!d->o->max_per_host || !strncmp(name, "127.", 4) || !strncmp(name, "::1 ", 4))
		return false;
	for (size_t i = 0; i < d->o->max_peers; i++)
		n += d->peers[i].worker.pid > 0 && !strncmp(d->peers[i].name, name, host);
	return n >= d->o->max_per_host;
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
		daemon_say(d, 2, "%s turned away: %u peers are being served", name, d->o->max_peers);
		count_refusal(d, REFUSED_CROWDED);
		return;
	}
	if (is_crowding(d, name)) {
		daemon_say(d, 2, "%s turned away: %u connections of this host are being served", name,
			   d->o->max_per_host);
		count_refusal(d, REFUSED_PEER);
		return;
	}
	own_fds(d, own);
	*free_one = (struct peer){.worker = WORKER_INIT};
	s.slot = (size_t)(free_one - d->peers);
	s.name = name;
	allowance_table_clear(d->o->serve_options.limits.table, s.slot);
	snprintf(free_one->name, sizeof(free_one->name), "%s", name);
	status_init(&free_one->status, "receive", 0);
	if (worker_start(&free_one->worker, serve, &s, d->o->log_level, own, &e) < 0) {
		daemon_say(d, 1, "%s turned away: %s", name, e.text);
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
		daemon_say(d, 1, "%s", e.text);
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
	daemon_say(d, 3, "%s connected", name);
	waiting_add(&d->waiting, sock, name, &gone);
	if (d->o->monitor)
		monitor_metrics(d->o->monitor)->connections++;
	if (gone.sock < 0)
		return;
	daemon_say(d, 2, "%s turned away: it said nothing, and %d others wait", gone.name, WAITING_MAX);
	count_refusal(d, REFUSED_CROWDED);
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
			daemon_say(d, 2, "%s turned away: ferryd ends", w.name);
		else
			start_peer(d, w.sock, w.name);
		close(w.sock);
	}
	while (waiting_left_ms(&d->waiting, d->o->first_byte_ms, now) == 0) {
		struct waiting w = waiting_take(&d->waiting, 0);

		daemon_say(d, 1, "%s said nothing for %d ms", w.name, d->o->first_byte_ms);
		count_refusal(d, REFUSED_SILENT);
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
		daemon_say_of(d, p, 3, "waits: number %u in the queue", position);
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

/* A connection that is about a migration of its own says so by its first change of state. */
static void count_event(struct daemon *d, struct peer *p, const json_t *event)
{
	struct metrics *m = d->o->monitor && p != &d->heir ? monitor_metrics(d->o->monitor) : NULL;

	if (!m)
		return;
	if (!p->counted && !strcmp(msg_str(event, "event", ""), "state")) {
		metrics_start(m, p->status.verb);
		p->counted = true;
	}
	metrics_event(m, &p->status, event);
}

static void count_end(struct daemon *d, struct peer *p, int code, const char *phase)
{
	if (p->counted)
		metrics_end(monitor_metrics(d->o->monitor), p->status.verb, code, phase);
	p->counted = false;
}

static void peer_result(struct daemon *d, struct peer *p, const json_t *result)
{
	struct error e = ERROR_INIT;

	if (msg_to_error(result, &e) < 0)
		daemon_say_of(d, p, e.code == ECANCELED ? 3 : 1, "Error (%s): %s", e.where, e.text);
	else
		daemon_say_of(d, p, 3, "done");
	count_end(d, p, e.code, e.phase);
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
	count_event(d, p, m);
	status_event(&p->status, m);
	if (!p->status.target)
		p->status.target = (pid_t)msg_int(m, "pid", 0);
	if (result)
		peer_result(d, p, result);
	else if (!strcmp(name, "log"))
		daemon_say_of(d, p, (int)msg_int(m, "level", 3), "%s", msg_str(m, "text", ""));
	else {
		cleanup_free char *text = json_dumps(m, JSON_COMPACT | JSON_REAL_PRECISION(9));

		daemon_say_of(d, p, 4, "%s", text ? text : name);
	}
	json_decref(m);
	return 1;
}

static void end_peer(struct daemon *d, struct peer *p, int status)
{
	while (peer_message(d, p))
		;
	if (WIFSIGNALED(status)) {
		daemon_say_of(d, p, 1, "its worker was killed by signal %d", WTERMSIG(status));
		if (p != &d->heir)
			d->looked = 0; /* at once */
	}
	count_end(d, p, -1, "");
	close(p->worker.sock);
	if (p->worker.pidfd >= 0)
		close(p->worker.pidfd);
	p->worker = (struct worker)WORKER_INIT;
	if (p != &d->heir) {
		allowance_table_clear(d->o->serve_options.limits.table, (size_t)(p - d->peers));
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

		if (errands_reaped(d, pid, status))
			continue;
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
	errands_cancel(d);
}

static void reload(struct daemon *d)
{
	struct error e = ERROR_INIT;

	if (d->ending || !d->o->reload)
		return;
	if (d->o->reload(d->o, &e) < 0)
		daemon_say(d, 1, "the configuration stays as it was: %s", e.text);
	else
		daemon_say(d, 3, "the configuration was read again");
	update_queue(d);
}

static void read_signals(struct daemon *d)
{
	struct signalfd_siginfo si;

	while (read(d->signals, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			reap(d);
		else if (si.ssi_signo == SIGHUP)
			reload(d);
		else
			begin_end(d);
	}
}

static int wait_ms(const struct daemon *d)
{
	const int all[] = {waiting_left_ms(&d->waiting, d->o->first_byte_ms, now_ns()),
			   monitor_left_ms(d->o->monitor, now_ns()), d->ending ? 1000 : -1,
			   d->o->recover ? HEIR_MS : -1, d->o->alive ? d->o->alive_ms : -1};
	int least = -1;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i] >= 0 && (least < 0 || all[i] < least))
			least = all[i];
	return least;
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
	struct pollfd *heir = &p[n++], *monitor = &p[n];
	size_t monitored = monitor_poll(d->o->monitor, monitor), errands = n + monitored;

	*heir = (struct pollfd){d->heir.worker.pid > 0 ? d->heir.worker.sock : -1, POLLIN, 0};
	if (d->o->alive)
		d->o->alive();
	if (poll(p, errands + errands_poll(d, p + errands), wait_ms(d)) < 0)
		return;
	if (heir->revents && !peer_message(d, &d->heir))
		usleep(1000);
	for (size_t i = 0; i < d->o->max_peers; i++) {
		const struct pollfd *q = &p[2 + d->n_listeners + i];

		/* At the end of the socket its process is as good as reaped. */
		if (q->revents && d->peers[i].worker.sock == q->fd && !peer_message(d, &d->peers[i]))
			usleep(1000);
	}
	if (p[0].revents)
		read_signals(d);
	control_monitor(d, monitor, monitored);
	errands_handle(d, p + errands);
	if (p[1].revents)
		control_answer(d);
	hear(d, p + rooms, waiting);
	for (size_t i = 0; i < d->n_listeners; i++)
		if (p[2 + i].revents && !d->ending)
			accept_peer(d, d->listeners[i]);
}

int daemon_run(struct daemon_options *o, const int *listeners, size_t n, int control, struct error *e)
{
	struct daemon d = {.o = o, .listeners = listeners, .n_listeners = n, .control = control};
	sigset_t set;

	if (n > MAX_LISTENERS || o->max_peers > 500)
		return error_say(e, EINVAL, "too many sockets to listen at, or too many peers");
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d.signals < 0)
		return error_set(e, errno, "cannot make a signalfd");
	/* A peer may be gone again between poll and accept. */
	for (size_t i = 0; i < n; i++)
		fcntl(listeners[i], F_SETFL, fcntl(listeners[i], F_GETFL) | O_NONBLOCK);
	d.peers = xcalloc(o->max_peers, sizeof(*d.peers));
	o->serve_options.limits.table = allowance_table_new(o->max_peers);
	if (!o->serve_options.limits.table)
		daemon_say(&d, 1, "what peers may take is counted for each migration: %s", strerror(errno));
	cleanup_free struct pollfd *p =
		xcalloc(3 + n + o->max_peers + WAITING_MAX + MONITOR_MAX + ERRANDS_MAX, sizeof(*p));
	for (size_t i = 0; i < ERRANDS_MAX; i++)
		d.errands[i].sock = -1;

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
