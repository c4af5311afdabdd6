/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three processes: client (a command), keeper, worker.  The keeper never touches the target itself, except to
 * put it right when the worker was killed; it waits for four things at once: a new connection, its client,
 * its worker, and the end of the target.  Whatever goes wrong, it ends, and the next command of the chain
 * starts anew with a full image: lost work, never a wrong image.
 */
#include "service/keeper_main.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "service/job.h"
#include "service/msg.h"
#include "service/status.h"
#include "service/worker.h"
#include "state/sockets/hold.h"

#define WORKER_END_MS  30000
#define FIRST_CLIENT_S 10

struct keeper {
	pid_t target;
	const char *path;        /* of the socket */
	int listener, target_fd; /* a pidfd */
	int client;              /* whose request the worker is at; -1: none */
	bool used;               /* a request has come */
	bool last;               /* the request ends the chain */
	bool ending;             /* the client waits for the end */
	bool over;               /* nothing more is accepted */
	struct worker worker;
	struct job_status status;
};

struct work {
	const struct chain_ops *ops;
};

/* --- the worker ------------------------------------------------------------------------------- */

/* One request after another, until the end of the chain or of the keeper. */
static int work(void *ctx, int sock, const struct events *ev, struct error *e)
{
	struct chain chain = {.ops = ((struct work *)ctx)->ops};
	json_t *held = NULL; /* the last request: the session uses its strings */
	bool last = false;

	while (!last && !job_aborted()) {
		struct chain_request r;
		json_t *m = NULL;
		int fds[MSG_MAX_FDS];
		bool anew = false;

		if (msg_recv(sock, &m, fds) != 1)
			break;
		int code = chain_request_unpack(m, &r, e);

		r.dirfd = fds[0];
		r.page_server = fds[1];
		if (code == 0)
			code = chain_run(&chain, &r, ev, &anew, e);
		msg_close_fds(fds);
		json_decref(held);
		held = m;
		last = code < 0 || r.op == CHAIN_DUMP;
		if (!last) {
			json_t *result = msg_result(e);

			worker_send(ev, result);
			json_decref(result);
		}
	}
	chain_close(&chain);
	json_decref(held);
	return error_is(e) ? -e->code : 0; /* the caller sends the last result */
}

/* --- the keeper ------------------------------------------------------------------------------- */

static void detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	if (chdir("/") < 0)
		return;
}

/* Only the three standard descriptors and the listener are the keeper's; the rest was its starter's. */
static void close_others(int listener)
{
	if (listener > 3)
		close_range(3, listener - 1, 0);
	close_range(MAX(listener + 1, 3), ~0u, 0);
}

static void drop_client(struct keeper *k)
{
	if (k->client >= 0)
		close(k->client);
	k->client = -1;
}

/* No more requests: whoever comes now finds no keeper. */
static void stop_listening(struct keeper *k)
{
	if (k->over)
		return;
	k->over = true;
	unlink(k->path);
	close(k->listener);
	k->listener = -1;
}

/* The tracking ends: after the request at hand, or at once when @cancel. */
static void end_worker(struct keeper *k, bool cancel)
{
	stop_listening(k);
	shutdown(k->worker.sock, SHUT_WR);
	if (cancel)
		worker_cancel(&k->worker);
}

static void pass_request(struct keeper *k, int sock, json_t *m, int *fds)
{
	struct pollfd gone = {k->target_fd, POLLIN, 0};
	struct error e = ERROR_INIT;
	bool end = !strcmp(msg_str(m, "op", ""), "end");

	if (k->client >= 0 || k->over)
		error_say(&e, EBUSY,
			  "process %d is busy: another command is at work on it (see ferry status)",
			  k->target);
	else if (k->target_fd >= 0 && poll(&gone, 1, 0) > 0)
		error_say(&e, ESRCH, "process %d has ended", k->target);
	else if (!end && fds[0] < 0)
		error_say(&e, EPROTO, "a request without an images directory");
	k->used = true;
	if (!error_is(&e) && end) {
		k->client = sock;
		k->ending = true;
		end_worker(k, false);
		return;
	}
	int r = error_is(&e) ? 0 : msg_send(k->worker.sock, m, fds, fds[1] >= 0 ? 2 : 1, false);

	if (r < 0)
		error_set(&e, -r, "the keeper's worker for process %d is gone", k->target);
	if (!error_is(&e)) {
		struct timeval bound = {.tv_sec = 5}; /* for results; events are not waited for */

		setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
		k->client = sock;
		k->last = !strcmp(msg_str(m, "op", ""), "dump");
		status_init(&k->status, msg_str(m, "op", ""), k->target);
		return;
	}
	json_t *answer = msg_result(&e);

	msg_send(sock, answer, NULL, 0, true);
	json_decref(answer);
	close(sock);
}

static void new_connection(struct keeper *k)
{
	int fds[MSG_MAX_FDS], sock = -1;
	json_t *m = NULL;
	int r = job_answer(k->listener, status_json(&k->status), &sock, &m, fds);

	if (r == 1)
		end_worker(k, true);
	if (r != 2)
		return;
	pass_request(k, sock, m, fds);
	msg_close_fds(fds);
	json_decref(m);
}

/* The client says cancel, or is gone: in both cases nobody wants the result. */
static void client_message(struct keeper *k)
{
	json_t *m = NULL;
	int r = msg_recv(k->client, &m, NULL);

	if (r == 1 && strcmp(msg_str(m, "op", ""), "cancel")) {
		json_decref(m);
		return;
	}
	json_decref(m);
	if (r != 1)
		drop_client(k);
	end_worker(k, true);
}

/* Pass on what the worker says. Returns 0 when it has nothing more to say. */
static int worker_message(struct keeper *k)
{
	json_t *m = NULL;
	int r = msg_recv(k->worker.sock, &m, NULL);

	if (r <= 0)
		return r == -EPROTO;
	const json_t *result = json_object_get(m, "result");

	status_event(&k->status, m);
	if (result && (k->last || msg_int(result, "code", 0)))
		stop_listening(k);
	if (k->client >= 0 && !k->ending)
		msg_send(k->client, m, NULL, 0, !result);
	if (result && !k->ending) {
		drop_client(k);
		strcpy(k->status.phase, "tracking");
	}
	json_decref(m);
	return 1;
}

/* Wait for the worker's end; put the target right if it was killed; tell who waits. */
static void finish(struct keeper *k)
{
	stop_listening(k);
	int status = worker_wait(&k->worker, WORKER_END_MS);
	struct error e = ERROR_INIT;

	if (WIFSIGNALED(status)) {
		if (rescue_run(&e) < 0)
			error_prefix(&e, "the tracking of process %d was killed by signal %d", k->target,
				     WTERMSIG(status));
		else if (*rescue_hold() && hold_remove(rescue_hold(), &e) < 0)
			error_prefix(&e, "the tracking of process %d was killed by signal %d", k->target,
				     WTERMSIG(status));
		else if (!k->ending)
			error_say(&e, EIO,
				  "the tracking of process %d was killed by signal %d%s; the process runs on",
				  k->target, WTERMSIG(status), rescue_call());
	}
	if (k->client >= 0) {
		json_t *m = msg_result(&e);

		msg_send(k->client, m, NULL, 0, true);
		json_decref(m);
		drop_client(k);
	}
}

static void loop(struct keeper *k, const sigset_t *waiting)
{
	for (;;) {
		struct pollfd p[] = {{k->worker.sock, POLLIN, 0},
				     {k->ending ? -1 : k->client, POLLIN, 0},
				     {k->listener, POLLIN, 0},
				     {k->over || k->client >= 0 ? -1 : k->target_fd, POLLIN, 0}};
		struct timespec bound = {.tv_sec = k->over ? WORKER_END_MS / 1000 : FIRST_CLIENT_S};
		int r = ppoll(p, ARRAY_SIZE(p), k->over || !k->used ? &bound : NULL, waiting);

		if (r == 0 && k->over)
			return;
		if (!k->over && (job_aborted() || r == 0))
			end_worker(k, true);
		if (r <= 0)
			continue;
		if (p[0].revents && !worker_message(k))
			return;
		if (p[3].revents && !k->over)
			end_worker(k, false);
		if (p[1].revents && k->client >= 0)
			client_message(k);
		if (p[2].revents && !k->over)
			new_connection(k);
	}
}

int keeper_main(int listener, const char *path, pid_t target, const struct chain_ops *ops)
{
	struct keeper k = {
		.target = target, .path = path, .listener = listener, .client = -1, .worker = WORKER_INIT};
	struct work w = {.ops = ops};
	struct error e = ERROR_INIT;
	int own[2] = {listener, -1};
	sigset_t all, waiting;

	detach();
	close_others(listener);
	worker_signals();
	prctl(PR_SET_NAME, "ferry-keeper");
	status_init(&k.status, "pre-dump", target);
	k.target_fd = sys_pidfd_open(target, 0);
	if (rescue_init(&e) < 0 || worker_start(&k.worker, work, &w, 4, own, &e) < 0) {
		unlink(path);
		return 1;
	}
	/* Signals come only while it waits, so that none is missed. */
	sigprocmask(SIG_SETMASK, NULL, &waiting);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	loop(&k, &waiting);
	finish(&k);
	return 0;
}
