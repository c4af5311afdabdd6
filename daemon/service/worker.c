/* SPDX-License-Identifier: Apache-2.0 */
#include "service/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/util.h"
#include "service/msg.h"

#define MAX_KEPT 4096

struct emitter {
	int sock;
	int log_level;
	json_t *kept; /* array of events that did not fit */
	uint64_t lost;
};

static void on_stop(int sig)
{
	(void)sig;
	job_abort();
}

void worker_signals(void)
{
	static const int stop[] = {SIGTERM, SIGINT, SIGHUP};
	struct sigaction sa = {
		.sa_handler = on_stop}; /* no SA_RESTART: a blocked call returns and looks at the flag */
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(stop); i++) {
		sigaction(stop[i], &sa, NULL);
		sigaddset(&set, stop[i]);
	}
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* Send what was kept, as far as it goes. 0: nothing is left. */
static int flush_kept(struct emitter *m, bool nowait)
{
	int r = 0;

	while (r == 0 && json_array_size(m->kept)) {
		r = msg_send(m->sock, json_array_get(m->kept, 0), NULL, 0, nowait);
		if (r != -EAGAIN)
			json_array_remove(m->kept, 0);
	}
	return r;
}

static void emit(void *ctx, const json_t *event)
{
	struct emitter *m = ctx;

	if (!strcmp(msg_str(event, "event", ""), "log") && msg_int(event, "level", 3) > m->log_level)
		return;
	if (flush_kept(m, true) == 0 && msg_send(m->sock, event, NULL, 0, true) != -EAGAIN)
		return;
	if (json_array_size(m->kept) < MAX_KEPT)
		json_array_append_new(m->kept, json_deep_copy(event));
	else
		m->lost++;
}

int worker_send(const struct events *ev, const json_t *msg)
{
	struct emitter *m = ev->ctx;

	flush_kept(m, false);
	if (m->lost) {
		cleanup_free char *text = xasprintf("%llu events were lost", (unsigned long long)m->lost);
		json_t *j = json_pack("{s:s,s:i,s:s}", "event", "log", "level", 2, "text", text);

		msg_send(m->sock, j, NULL, 0, false);
		json_decref(j);
		m->lost = 0;
	}
	return msg_send(m->sock, msg, NULL, 0, false);
}

static int child(int sock, worker_fn fn, void *ctx, int log_level, pid_t supervisor)
{
	struct emitter m = {.sock = sock, .log_level = log_level, .kept = json_array()};
	struct events ev = {.emit = emit, .ctx = &m};
	struct error e = ERROR_INIT;

	worker_signals();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != supervisor)
		job_abort();
	int r = fn(ctx, sock, &ev, &e);

	/* Most often the target has gone, and everything that asks about it just finds nothing. */
	if (r < 0 && !error_is(&e))
		error_set(&e, -r, "the target could not be followed");
	json_t *result = msg_result(&e);

	worker_send(&ev, result);
	json_decref(result);
	json_decref(m.kept);
	return error_is(&e) ? 1 : 0;
}

int worker_start(struct worker *ret, worker_fn fn, void *ctx, int log_level, const int *close_fds,
		 struct error *e)
{
	pid_t supervisor = getpid();
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set(e, errno, "cannot make a socket pair");
	fflush(NULL);
	pid_t pid = fork();

	if (pid < 0) {
		int code = errno;

		close(pair[0]);
		close(pair[1]);
		return error_set(e, code, "cannot start a worker process");
	}
	if (pid == 0) {
		close(pair[0]);
		for (; close_fds && *close_fds >= 0; close_fds++)
			close(*close_fds);
		_exit(child(pair[1], fn, ctx, log_level, supervisor));
	}
	close(pair[1]);
	*ret = (struct worker){.pid = pid, .pidfd = sys_pidfd_open(pid, 0), .sock = pair[0]};
	return 0;
}

void worker_cancel(const struct worker *w)
{
	if (w->pid > 0)
		kill(w->pid, SIGTERM);
}

int worker_wait(struct worker *w, int timeout_ms)
{
	struct pollfd p = {.fd = w->pidfd, .events = POLLIN};
	int status = 0, r;

	if (w->pid <= 0)
		return 0;
	do
		r = w->pidfd >= 0 ? poll(&p, 1, timeout_ms) : 1;
	while (r < 0 && errno == EINTR);
	if (r == 0)
		kill(w->pid, SIGKILL);
	while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (w->pidfd >= 0)
		close(w->pidfd);
	if (w->sock >= 0)
		close(w->sock);
	*w = (struct worker)WORKER_INIT;
	return status;
}
