/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "base/util.h"
#include "cli/cli.h"
#include "migrate/lane.h"
#include "service/script.h"
#include "service/worker.h"

#define HAND_OVER_SECONDS 60

/* Ctrl-C during the restore ends it in order; afterwards it ends only us. */
static void default_signals(void)
{
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
}

/* The exit code of a shell for it. */
static int wait_for(pid_t root, struct error *e)
{
	int status;

	while (waitpid(root, &status, 0) < 0)
		if (errno != EINTR)
			return error_set(e, errno, "cannot wait for the restored process %d", root);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int become(char **argv, struct error *e)
{
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	return error_set(e, errno, "the tree runs, but %s cannot be executed", argv[0]);
}

/* --- with "ferry lazy-pages" ---------------------------------------------------------------------------- */

struct lazy {
	char *state, *socket;
	int sock;
};

static int hand_over(void *ctx, struct error *e)
{
	struct lazy *l = ctx;
	struct timeval limit = {.tv_sec = HAND_OVER_SECONDS};
	char answer[sizeof(e->text)];

	l->sock = lane_connect(l->socket);
	if (l->sock < 0)
		return error_set(
			e, -l->sock,
			"nobody waits at %s: \"ferry lazy-pages\" with the same directory comes first",
			l->socket);
	setsockopt(l->sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ssize_t n =
		send(l->sock, "r", 1, MSG_NOSIGNAL) == 1 ? recv(l->sock, answer, sizeof(answer) - 1, 0) : -1;

	if (n < 1)
		return error_set(e, n < 0 ? errno : EPIPE, "hand the memory over to \"ferry lazy-pages\"");
	answer[n] = 0;
	return *answer == 'y' ? 0 : error_say(e, EIO, "lazy-pages: %s", answer + 1);
}

static void started(void *ctx)
{
	struct lazy *l = ctx;

	send(l->sock, "s", 1, MSG_NOSIGNAL);
}

static void lazy_end(struct lazy *l)
{
	if (l->sock >= 0)
		close(l->sock);
	free(l->state);
	free(l->socket);
}

static int check(const struct cli *c, struct error *e)
{
	if (c->o.exec_cmd ? !c->argc : c->argc)
		return error_say(e, EINVAL,
				 c->o.exec_cmd ? "--exec-cmd needs a command behind --"
					       : "restore takes no operands");
	return 0;
}

int verb_restore(struct cli *c, struct error *e)
{
	cleanup_free char *images = cli_images_path(c);
	struct script script = {c->o.action_script, images};
	struct hooks hooks = script_hooks(&script);
	struct restore_options o = {.leave_stopped = c->o.leave_stopped,
				    .sibling = c->o.restore_sibling,
				    .detached = c->o.restore_detached,
				    .hooks = script.path ? &hooks : NULL};
	struct lazy l = {.sock = -1};
	struct restore_lazy lazy = {.hand_over = hand_over, .started = started, .ctx = &l};
	pid_t root = 0;
	int r = check(c, e);

	if (r < 0)
		return r;
	cleanup_close int dirfd = cli_open_images(c, e);

	if (dirfd < 0)
		return dirfd;
	cli_state_options(c, &o.state);
	c->display.verb = "restored";
	if (c->o.lazy_pages) {
		lazy.state_path = l.state = cli_lazy_state(c);
		l.socket = cli_lazy_socket(c);
		o.lazy = &lazy;
	}
	worker_signals();
	r = script_run(&script, "pre-restore", 0, e);
	if (r == 0)
		r = cli_enter_namespaces(c, &script, e);
	if (r == 0)
		r = restore_from_dir(dirfd, &o, &c->events, &root, e);
	lazy_end(&l);
	default_signals();
	if (r < 0)
		return r;
	log_line(&c->log, 3, "process %d runs", root);
	r = cli_write_pidfile(c, root, e);
	if (r < 0)
		return error_prefix(e, "process %d runs, but", root);
	if (c->o.exec_cmd)
		return become(c->argv, e);
	return c->o.restore_detached || c->o.restore_sibling ? 0 : wait_for(root, e);
}
