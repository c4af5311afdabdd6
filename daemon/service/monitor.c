/* SPDX-License-Identifier: Apache-2.0 */
#include "service/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/net.h"
#include "base/util.h"
#include "service/msg.h"
#include "service/rundir.h"
#include "service/scrape.h"

#define SCRAPE_MS 5000
#define AT_ONCE   64 /* messages of one job before others get their turn */

struct scraper {
	int sock; /* -1: free */
	uint64_t since;
	char in[SCRAPE_MAX];
	size_t n_in;
	char *out; /* NULL: nothing to say yet */
	size_t n_out, at;
};

struct monitored {
	int sock; /* -1: free */
	struct job_status status;
};

struct monitor {
	struct metrics metrics;
	int listener;
	char *path; /* of the listener, if it is a unix socket */
	struct monitored jobs[MONITOR_JOBS];
	struct scraper scrapers[MONITOR_SCRAPERS];
};

/* --- making ------------------------------------------------------------------------------------------- */

static int listen_unix(const char *path, struct error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	cleanup_close int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (strlen(path) >= sizeof(a.sun_path))
		return error_set(e, ENAMETOOLONG, "cannot listen at %s", path);
	strcpy(a.sun_path, path);
	/* Only a socket, and only one that nobody listens at, is in nobody's way. */
	if (sock >= 0 && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		if (connect(sock, (struct sockaddr *)&a, sizeof(a)) == 0)
			return error_set(e, EADDRINUSE, "cannot listen at %s", path);
		if (errno == ECONNREFUSED)
			unlink(path);
	}
	mode_t old = umask(0177);
	int r = sock < 0 || bind(sock, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(sock, 8) < 0 ? -errno
												    : 0;

	umask(old);
	return r < 0 ? error_set(e, -r, "cannot listen at %s", path) : TAKE_FD(sock);
}

int monitor_refuse(const char *where, struct error *e)
{
	return error_say(e, EINVAL, "metrics are served at a loopback address or a unix socket, not at %s",
			 where);
}

static int listen_tcp(const char *where, struct error *e)
{
	cleanup_free char *host = NULL, *port = NULL;

	if (net_split(where, NULL, "9471", &host, &port, e) < 0)
		return -e->code;
	cleanup_close int sock = net_listen(host, port, e);

	if (sock < 0)
		return sock;
	if (!net_is_loopback(sock))
		return monitor_refuse(where, e);
	fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) | O_NONBLOCK);
	return TAKE_FD(sock);
}

int monitor_new(struct monitor **ret, const char *where, struct error *e)
{
	struct monitor *m = xcalloc(1, sizeof(*m));

	metrics_init(&m->metrics);
	for (size_t i = 0; i < MONITOR_JOBS; i++)
		m->jobs[i].sock = -1;
	for (size_t i = 0; i < MONITOR_SCRAPERS; i++)
		m->scrapers[i].sock = -1;
	m->listener = *where == '/' ? listen_unix(where, e) : listen_tcp(where, e);
	if (m->listener < 0) {
		monitor_free(m);
		return -e->code;
	}
	if (*where == '/')
		m->path = xstrdup(where);
	*ret = m;
	return 0;
}

static void end_scraper(struct scraper *s)
{
	if (s->sock >= 0)
		close(s->sock);
	free(s->out);
	*s = (struct scraper){.sock = -1};
}

void monitor_free(struct monitor *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < MONITOR_JOBS; i++)
		if (m->jobs[i].sock >= 0)
			close(m->jobs[i].sock);
	for (size_t i = 0; i < MONITOR_SCRAPERS; i++)
		end_scraper(&m->scrapers[i]);
	if (m->listener >= 0)
		close(m->listener);
	if (m->path)
		unlink(m->path);
	free(m->path);
	free(m);
}

struct metrics *monitor_metrics(struct monitor *m)
{
	return &m->metrics;
}

/* --- jobs --------------------------------------------------------------------------------------------- */

void monitor_add_job(struct monitor *m, int sock, const json_t *hello)
{
	size_t i = 0;

	while (i < MONITOR_JOBS && m->jobs[i].sock >= 0)
		i++;
	if (i == MONITOR_JOBS) {
		close(sock);
		return;
	}
	fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) | O_NONBLOCK);
	m->jobs[i].sock = sock;
	status_init(&m->jobs[i].status, msg_str(hello, "verb", ""), (pid_t)msg_int(hello, "target", 0));
	metrics_start(&m->metrics, m->jobs[i].status.verb);
}

static void end_job(struct monitor *m, struct monitored *j, int code, const char *phase)
{
	metrics_end(&m->metrics, j->status.verb, code, phase);
	close(TAKE_FD(j->sock));
}

/* One message, if there is one. */
static bool hear_job(struct monitor *m, struct monitored *j)
{
	json_t *msg = NULL;
	int r = msg_recv(j->sock, &msg, NULL);

	if (r == -EAGAIN || r == -EWOULDBLOCK)
		return false;
	if (r == -EPROTO)
		return true;
	if (r != 1) {
		end_job(m, j, -1, "");
		return false;
	}
	const json_t *result = json_object_get(msg, "result");

	if (result) {
		end_job(m, j, (int)msg_int(result, "code", 0), msg_str(result, "phase", ""));
	} else {
		metrics_event(&m->metrics, &j->status, msg);
		status_event(&j->status, msg);
	}
	json_decref(msg);
	return j->sock >= 0;
}

/* --- scrapers ----------------------------------------------------------------------------------------- */

static void accept_scraper(struct monitor *m)
{
	struct scraper *s = &m->scrapers[0];
	int sock = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (sock < 0)
		return;
	for (size_t i = 0; i < MONITOR_SCRAPERS && s->sock >= 0; i++)
		if (m->scrapers[i].sock < 0 || m->scrapers[i].since < s->since)
			s = &m->scrapers[i];
	end_scraper(s); /* the oldest, if all are taken */
	s->sock = sock;
	s->since = now_ns();
}

static char *print(struct monitor *m, const struct job_status *const *own, size_t n_own, unsigned queued)
{
	const struct job_status **all = xcalloc(n_own + MONITOR_JOBS, sizeof(*all));
	struct metrics_now now = {.jobs = all, .queued = queued};
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	for (size_t i = 0; i < n_own; i++)
		all[now.n_jobs++] = own[i];
	for (size_t i = 0; i < MONITOR_JOBS; i++)
		if (m->jobs[i].sock >= 0)
			all[now.n_jobs++] = &m->jobs[i].status;
	if (!f)
		abort(); /* no memory */
	metrics_print(&m->metrics, &now, f);
	fclose(f);
	free(all);
	return text;
}

static void hear_scraper(struct monitor *m, struct scraper *s, const struct job_status *const *own,
			 size_t n_own, unsigned queued)
{
	ssize_t n = recv(s->sock, s->in + s->n_in, sizeof(s->in) - s->n_in, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_scraper(s);
		return;
	}
	s->n_in += (size_t)n;
	enum scrape_request r = scrape_parse(s->in, s->n_in);

	if (r == SCRAPE_MORE)
		return;
	cleanup_free char *body = r == SCRAPE_OK ? print(m, own, n_own, queued) : NULL;

	s->out = scrape_answer(r, body, &s->n_out);
}

static void answer_scraper(struct scraper *s)
{
	ssize_t n = send(s->sock, s->out + s->at, s->n_out - s->at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	s->at += n > 0 ? (size_t)n : 0;
	if (n < 0 || s->at == s->n_out)
		end_scraper(s);
}

/* --- the loop ----------------------------------------------------------------------------------------- */

size_t monitor_poll(const struct monitor *m, struct pollfd *p)
{
	size_t n = 0;

	if (!m)
		return 0;
	p[n++] = (struct pollfd){m->listener, POLLIN, 0};
	for (size_t i = 0; i < MONITOR_JOBS; i++)
		p[n++] = (struct pollfd){m->jobs[i].sock, POLLIN, 0};
	for (size_t i = 0; i < MONITOR_SCRAPERS; i++)
		p[n++] = (struct pollfd){m->scrapers[i].sock, m->scrapers[i].out ? POLLOUT : POLLIN, 0};
	return n;
}

int monitor_left_ms(const struct monitor *m, uint64_t now)
{
	int least = -1;

	for (size_t i = 0; m && i < MONITOR_SCRAPERS; i++) {
		const struct scraper *s = &m->scrapers[i];
		uint64_t gone = s->sock < 0 ? 0 : (now - s->since) / 1000000;
		int left = gone >= SCRAPE_MS ? 0 : (int)(SCRAPE_MS - gone);

		if (s->sock >= 0 && (least < 0 || left < least))
			least = left;
	}
	return least;
}

void monitor_handle(struct monitor *m, const struct pollfd *p, size_t n, const struct job_status *const *own,
		    size_t n_own, unsigned queued)
{
	uint64_t now = now_ns();

	if (!n)
		return;
	for (size_t i = 0; i < MONITOR_JOBS; i++) {
		struct monitored *j = &m->jobs[i];

		for (int k = 0; p[1 + i].revents && j->sock == p[1 + i].fd && k < AT_ONCE; k++)
			if (!hear_job(m, j))
				break;
	}
	for (size_t i = 0; i < MONITOR_SCRAPERS; i++) {
		const struct pollfd *q = &p[1 + MONITOR_JOBS + i];
		struct scraper *s = &m->scrapers[i];

		if (q->revents && s->sock >= 0 && s->sock == q->fd && !s->out)
			hear_scraper(m, s, own, n_own, queued);
		if (q->revents && s->sock >= 0 && s->out)
			answer_scraper(s);
		if (s->sock >= 0 && now - s->since >= SCRAPE_MS * 1000000ull)
			end_scraper(s);
	}
	if (p[0].revents)
		accept_scraper(m);
}

/* --- the other end ------------------------------------------------------------------------------------ */

int monitor_tell_open(const char *verb, pid_t target)
{
	cleanup_free char *path = xasprintf("%s/ferryd.sock", rundir_path());
	json_t *hello = json_pack("{s:s,s:s,s:i}", "op", "tell", "verb", verb, "target", (int)target);
	int sock = rundir_connect_now(path);

	monitor_tell(&sock, hello);
	json_decref(hello);
	return sock;
}

void monitor_tell(int *sock, const json_t *message)
{
	int r = *sock < 0 ? 0 : msg_send(*sock, message, NULL, 0, true);

	if (r < 0 && r != -EAGAIN)
		close(TAKE_FD(*sock));
}
