/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/lazy_client.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/util.h"
#include "migrate/lazy_server.h"

static int read_image(const struct lazy_from *f, int sock)
{
	struct error e = ERROR_INIT, link = ERROR_INIT;
	struct stream_in *in = NULL;

	close_all_but(sock, f->dirfd); /* userfaultfds are not for it */
	signal(SIGINT, SIG_IGN);       /* it ends with its connection */
	signal(SIGTERM, SIG_IGN);
	if (stream_in_chain(&in, f->dirfd, &e) < 0) {
		struct peer p;

		if (peer_init(&p, sock, &link) == 0)
			peer_send_error(&p, &e);
		return 1;
	}
	const struct lazy_server s = {.uuid = f->uuid, .answerer = {.read = lazy_read_image, .ctx = in}};

	return lazy_serve_connection(&s, sock, &link, &e) != ANSWER_OVER;
}

static void reap(struct lazy_from *f, int lane)
{
	while (f->reader[lane] > 0 && waitpid(f->reader[lane], NULL, 0) < 0 && errno == EINTR)
		;
	f->reader[lane] = 0;
}

static int start_reader(struct lazy_from *f, int lane, struct error *e)
{
	pid_t parent = getpid();
	int pair[2];

	reap(f, lane);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set(e, errno, "make a socket pair");
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(getppid() != parent || read_image(f, pair[1]));
	}
	int code = errno;

	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return error_set(e, code, "start a process that reads the image");
	}
	f->reader[lane] = pid;
	return pair[0];
}

static int dial_server(struct lazy_from *f, int lane, struct error *e)
{
	struct link l;

	/* While we are here nobody answers the program: what is left of the last connection is not waited
	 * for. */
	if (f->reader[lane] > 0)
		kill(f->reader[lane], SIGKILL);
	reap(f, lane);
	int r = link_connect(f->to, &f->link, GRANT_PAGE_SERVE, &l, e);

	f->reader[lane] = l.relay;
	return r < 0 ? r : l.sock;
}

int lazy_dial(void *ctx, int lane, struct peer *ret, struct error *e)
{
	struct lazy_from *f = ctx;
	int sock = f->to ? dial_server(f, lane, e) : start_reader(f, lane, e);
	int r = sock < 0 ? sock : lazy_ask(sock, f->uuid, lane, ret, e);

	if (r < 0 && sock >= 0)
		close(sock);
	return r;
}

void lazy_from_end(struct lazy_from *f)
{
	reap(f, 0);
	reap(f, 1);
}
