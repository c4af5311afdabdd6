/* SPDX-License-Identifier: Apache-2.0 */
#include "service/job.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "service/monitor.h"
#include "service/msg.h"
#include "service/rundir.h"
#include "service/status.h"
#include "state/sockets/hold.h"

/* A cancelled worker that does not come to an end is killed, and its target cured, after this time. */
#define CANCEL_MS 30000

struct job {
	struct job_status status;
	const struct events *events;
	char *path; /* of the status socket; NULL: none */
	int listener;
	int signals; /* signalfd */
	int monitor; /* to ferryd, which counts; -1: nobody does */
	sigset_t old_mask;
	struct worker worker; /* pid 0: served by a keeper */
	int peer;
	uint64_t cancelled; /* when; 0: not */
	bool finished;      /* the result is in @error */
};

static int refuse_other(void *ctx, const char *path, int sock)
{
	struct error *e = ctx;
	const char *name = strrchr(path, '/') + 1;
	const char *verb = strchr(name, '-');

	(void)sock;
	return error_say(e, EBUSY, "process %d is busy: another ferry%s%.*s works on it (see ferry status)",
			 atoi(name), verb ? " " : "", verb ? (int)strcspn(verb + 1, ".") : 0,
			 verb ? verb + 1 : "");
}

static int reserve(struct job *j, struct error *e)
{
	cleanup_close int lock = -1;
	struct error trouble = ERROR_INIT;

	if (rundir_lock(&lock, &trouble) < 0) {
		events_log(j->events, 2, "no status and cancel for this job: %s", trouble.text);
		return 0;
	}
	int r = rundir_each("jobs", j->status.target, refuse_other, e);

	if (r < 0)
		return r;
	j->path = rundir_job_path(j->status.target, j->status.verb);
	j->listener = rundir_listen(j->path, &trouble);
	if (j->listener < 0) {
		events_log(j->events, 2, "no status and cancel for this job: %s", trouble.text);
		free(TAKE_PTR(j->path));
	}
	return 0;
}

int job_open(struct job **ret, const char *verb, pid_t target, const struct events *ev, struct error *e)
{
	struct job *j = xcalloc(1, sizeof(*j));
	sigset_t set;

	*j = (struct job){.events = ev,
			  .listener = -1,
			  .signals = -1,
			  .monitor = -1,
			  .peer = -1,
			  .worker = WORKER_INIT};
	status_init(&j->status, verb, target);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, &j->old_mask);
	j->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	int r = j->signals < 0 ? error_set(e, errno, "cannot make a signalfd") : reserve(j, e);

	if (r < 0) {
		job_free(j);
		return r;
	}
	j->monitor = monitor_tell_open(verb, target);
	*ret = j;
	return 0;
}

void job_free(struct job *j)
{
	if (!j)
		return;
	if (j->path)
		unlink(j->path);
	free(j->path);
	if (j->listener >= 0)
		close(j->listener);
	if (j->signals >= 0)
		close(j->signals);
	if (j->monitor >= 0)
		close(j->monitor);
	sigprocmask(SIG_SETMASK, &j->old_mask, NULL);
	free(j);
}

static void cancel(struct job *j)
{
	if (j->cancelled)
		return;
	j->cancelled = now_ns();
	events_emit(j->events, json_pack("{s:s}", "event", "cancel"));
	if (j->worker.pid > 0) {
		worker_cancel(&j->worker);
		return;
	}
	json_t *m = json_pack("{s:s}", "op", "cancel");

	msg_send(j->peer, m, NULL, 0, true);
	json_decref(m);
}

/* Only root, and who runs this himself. */
static int accept_own(int listener)
{
	cleanup_close int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	uid_t uid;

	return sock >= 0 && control_right(sock, -1, &uid) == CONTROL_ALL ? TAKE_FD(sock) : -1;
}

int job_answer(int listener, json_t *status, int *ret_sock, json_t **ret_msg, int *ret_fds)
{
	return job_answer_one(accept_own(listener), status, ret_sock, ret_msg, ret_fds);
}

int job_answer_one(int from, json_t *status, int *ret_sock, json_t **ret_msg, int *ret_fds)
{
	cleanup_close int sock = from;
	struct timeval soon = {.tv_sec = 1};
	int fds[MSG_MAX_FDS], result = 0;
	json_t *m = NULL;

	if (sock >= 0) {
		setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
		setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof(soon));
	}
	if (sock >= 0 && msg_recv(sock, &m, fds) == 1) {
		const char *op = msg_str(m, "op", "");

		if (!strcmp(op, "status")) {
			msg_send(sock, status, NULL, 0, false);
		} else if (!strcmp(op, "cancel")) {
			json_t *yes = json_pack("{s:b}", "cancelled", 1);

			msg_send(sock, yes, NULL, 0, false);
			json_decref(yes);
			result = 1;
		} else if (ret_sock) {
			*ret_sock = TAKE_FD(sock);
			*ret_msg = json_incref(m);
			memcpy(ret_fds, fds, sizeof(fds));
			result = 2;
		}
		if (result != 2)
			msg_close_fds(fds);
	}
	json_decref(m);
	json_decref(status);
	return result;
}

/* One message of the worker or keeper. 1: go on; 0: it is over (result or end of file). */
static int one_message(struct job *j, struct error *e)
{
	json_t *m = NULL;
	int r = msg_recv(j->peer, &m, NULL);

	if (r == -EPROTO)
		return 1;
	if (r <= 0)
		return 0;
	const json_t *result = json_object_get(m, "result");

	if (result) {
		j->finished = true;
		msg_to_error(result, e);
	} else if (json_object_get(m, "event")) {
		status_event(&j->status, m);
		if (strcmp(msg_str(m, "event", ""), "log") != 0)
			monitor_tell(&j->monitor, m);
		if (j->events && j->events->emit)
			j->events->emit(j->events->ctx, m);
	}
	json_decref(m);
	return !result;
}

static int ms_left(const struct job *j)
{
	if (!j->cancelled)
		return -1;
	uint64_t gone = (now_ns() - j->cancelled) / 1000000;

	return gone >= CANCEL_MS ? 0 : (int)(CANCEL_MS - gone);
}

/* Until the result or the end of the other side. */
static void supervise(struct job *j, struct error *e)
{
	for (;;) {
		struct pollfd p[] = {{j->peer, POLLIN, 0}, {j->signals, POLLIN, 0}, {j->listener, POLLIN, 0}};
		int r = poll(p, ARRAY_SIZE(p), ms_left(j));
		struct signalfd_siginfo si;

		if (r == 0)
			return;
		if (r < 0)
			continue;
		if (p[1].revents && read(j->signals, &si, sizeof(si)) == sizeof(si))
			cancel(j);
		if (p[2].revents && job_answer(j->listener, status_json(&j->status), NULL, NULL, NULL) == 1)
			cancel(j);
		if (p[0].revents && !one_message(j, e))
			return;
	}
}

/* The worker has ended: if not by itself, put right what it left in the target. */
static int settle(struct job *j, int status, struct error *e)
{
	if (WIFEXITED(status) && j->finished)
		return error_is(e) ? -e->code : 0;
	struct error cure = ERROR_INIT;
	char how[256];
	int n = rescue_run(&cure);

	if (*rescue_hold())
		hold_remove(rescue_hold(), &cure);

	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was killed by signal %d%s", WTERMSIG(status), rescue_call());
	else
		snprintf(how, sizeof(how), "ended with code %d without a result", WEXITSTATUS(status));
	error_phase(e, "%s", j->status.phase);
	if (n < 0)
		return error_say(e, EIO,
				 "the worker for process %d %s, and the process could not be put right: %s",
				 j->status.target, how, cure.text);
	return error_say(e, EIO, "the worker for process %d %s; the process was put right and runs on",
			 j->status.target, how);
}

static void tell_result(struct job *j, const struct error *e)
{
	json_t *result = msg_result(e);

	monitor_tell(&j->monitor, result);
	json_decref(result);
}

int job_run_worker(struct job *j, worker_fn fn, void *ctx, int log_level, struct error *e)
{
	/* Those of no number are not there. */
	int own[] = {j->signals, j->listener >= 0 ? j->listener : j->signals, j->monitor, -1};
	int r = rescue_init(e);

	if (r < 0)
		return r;
	r = worker_start(&j->worker, fn, ctx, log_level, own, e);
	if (r < 0)
		return r;
	j->peer = j->worker.sock;
	supervise(j, e);
	r = settle(j, worker_wait(&j->worker, j->finished ? CANCEL_MS : ms_left(j)), e);
	tell_result(j, e);
	return r;
}

int job_run_peer(struct job *j, int sock, struct error *e)
{
	j->peer = sock;
	supervise(j, e);
	if (!j->finished)
		(void)error_say(e, EPIPE, "the keeper of process %d ended without a result",
				j->status.target);
	tell_result(j, e);
	return error_is(e) ? -e->code : 0;
}
