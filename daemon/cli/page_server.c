/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/util.h"
#include "cli/cli.h"
#include "base/net.h"
#include "service/worker.h"
#include "stream/stream.h"

static int tell_ready(int64_t fd, struct error *e)
{
	if (fd < 0)
		return 0;
	int r = write_full((int)fd, "", 1);

	close((int)fd);
	return r < 0 ? error_set(e, -r, "cannot write to --status-fd %d", (int)fd) : 0;
}

/* The parent tells the port and the child's pid, and ends. Returns in the child only. */
static int background(struct cli *c, struct error *e)
{
	fflush(NULL);
	pid_t pid = fork();

	if (pid < 0)
		return error_set(e, errno, "cannot go into the background");
	if (pid > 0) {
		int r = cli_write_pidfile(c, pid, e);

		if (r < 0) {
			kill(pid, SIGTERM);
			log_error(&c->log, e);
		}
		exit(r < 0);
	}
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	return 0;
}

static int serve_one(struct cli *c, int listener, int dirfd, struct error *e)
{
	int sock;
	uint64_t bytes = 0;
	char b[32];

	do
		sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	while (sock < 0 && (errno == EINTR || errno == ECONNABORTED) && !job_aborted());
	if (sock < 0)
		return job_aborted() ? job_check_abort(e) : error_set(e, errno, "cannot accept a connection");
	int r = page_server_serve(sock, dirfd, &bytes, e);

	close(sock);
	if (r == 0) {
		display_bytes((double)bytes, b);
		log_line(&c->log, 3, "received %s", b);
		printf("received %s\n", b);
	}
	return r;
}

int verb_page_server(struct cli *c, struct error *e)
{
	char port[8];

	if (c->argc)
		return error_say(e, EINVAL, "page-server takes no operands");
	cleanup_close int dirfd = cli_open_images(c, e);

	if (dirfd < 0)
		return dirfd;
	snprintf(port, sizeof(port), "%d", (int)c->o.port);
	cleanup_close int listener = net_listen(c->o.address, port, e);

	if (listener < 0)
		return listener;
	worker_signals();
	if (!c->o.port) {
		printf("PORT: %d\n", net_port(listener));
		fflush(stdout);
	}
	log_line(&c->log, 3, "listening at port %d", net_port(listener));
	int r = c->o.daemon ? background(c, e) : cli_write_pidfile(c, getpid(), e);

	if (r == 0)
		r = tell_ready(c->o.status_fd, e);
	return r < 0 ? r : serve_one(c, listener, dirfd, e);
}
