/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/socket.h>

#include "base/util.h"
#include "cli/cli.h"
#include "base/net.h"
#include "migrate/lazy_server.h"
#include "migrate/link.h"
#include "service/worker.h"
#include "stream/stream.h"

/* Its pages are given to "ferry lazy-pages" of another machine. */
static int serve_lazily(struct cli *c, int listener, int dirfd, struct error *e)
{
	cleanup_free char *uuid = lazy_image_uuid(dirfd, e);
	struct stream_in *in = NULL;
	bool begun;
	int r = uuid ? stream_in_chain(&in, dirfd, e) : -e->code;
	struct lazy_server server = {
		.listener = listener,
		.uuid = uuid,
		.answerer = {.read = lazy_read_image, .ctx = in, .events = &c->events},
	};

	if (r >= 0)
		r = cli_link_options(c, &server.link, e);
	if (r >= 0)
		r = cli_tell_ready(c, e);
	if (r >= 0)
		r = lazy_serve(&server, &begun, e);
	stream_in_free(in);
	if (r == 0)
		log_line(&c->log, 3, "all pages have been fetched");
	return r;
}

/* The first one who may. Others are told why not, and in nobody's way. */
static int accept_client(struct cli *c, int listener, struct link *ret, struct error *e)
{
	struct link_options o;
	int r = cli_link_options(c, &o, e);

	while (r >= 0) {
		struct error why = ERROR_INIT;

		if (job_aborted())
			return job_check_abort(e);
		int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (job_aborted()) {
			if (sock >= 0)
				close(sock);
			return job_check_abort(e);
		}
		if (sock < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (sock < 0)
			return error_set(e, errno, "cannot accept a connection");
		if (link_accept(sock, &o, GRANT_PAGE_SERVE, ret, &why) >= 0)
			break;
		log_line(&c->log, 2, "a connection was refused: %s", why.text);
		if (ret->sock >= 0)
			page_server_refuse(ret->sock, &why);
		if (ret->relay > 0) /* it has been told: he is not waited for */
			kill(ret->relay, SIGKILL);
		link_close(ret);
	}
	if (r >= 0 && ret->beyond && !ret->encrypted)
		log_line(&c->log, 2, "the link is not encrypted (--insecure)");
	return r;
}

static int serve_one(struct cli *c, int listener, int dirfd, struct error *e)
{
	struct link l;
	uint64_t bytes = 0;
	char b[32];
	int r = accept_client(c, listener, &l, e);

	if (r < 0)
		return r;
	r = page_server_serve(l.sock, dirfd, &bytes, e);
	link_close(&l);
	if (r == 0) {
		display_bytes((double)bytes, b);
		log_line(&c->log, 3, "received %s", b);
		printf("received %s\n", b);
	}
	return r;
}

int verb_page_server(struct cli *c, struct error *e)
{
	if (c->argc)
		return error_say(e, EINVAL, "page-server takes no operands");
	cleanup_close int dirfd = cli_open_images(c, e);

	if (dirfd < 0)
		return dirfd;
	cleanup_close int listener = cli_listen(c, e);

	if (listener < 0)
		return listener;
	worker_signals();
	int r = c->o.daemon ? cli_background(c, e) : cli_write_pidfile(c, getpid(), e);

	if (r == 0 && c->o.lazy_pages)
		return serve_lazily(c, listener, dirfd, e);
	if (r == 0)
		r = cli_tell_ready(c, e);
	return r < 0 ? r : serve_one(c, listener, dirfd, e);
}
