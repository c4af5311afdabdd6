/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lazy-pages: takes the memory of a tree over from "restore --lazy-pages", and sees to it that what is
 * missing comes: docs/post-copy.md, "As separate verbs".  What it needs for that is in a file, so that
 * another one can go on where it ended.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"
#include "cli/cli.h"
#include "migrate/fetch.h"
#include "migrate/lane.h"
#include "migrate/lazy_client.h"
#include "migrate/lazy_server.h"
#include "service/worker.h"

#define RESTORE_SECONDS 60 /* for it to start what it has handed over */

char *cli_lazy_socket(const struct cli *c)
{
	return xasprintf("%s/lazy-pages.socket", cli_work_dir(c));
}

char *cli_lazy_state(const struct cli *c)
{
	return xasprintf("%s/lazy-pages.state", cli_work_dir(c));
}

/* "r": all is ready at @path. "y", or "n" and why not; "s": it runs. */
static int take_over(int sock, const char *path, struct pager **ret, struct error *e)
{
	struct timeval limit = {.tv_sec = RESTORE_SECONDS};
	char word = 0;

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (recv(sock, &word, 1, 0) != 1 || word != 'r')
		return error_say(e, EPROTO, "somebody connected who is no \"ferry restore --lazy-pages\"");
	int r = pager_open(ret, path, e);

	if (r < 0) {
		cleanup_free char *why = xasprintf("n%s", e->text);

		send(sock, why, strlen(why), MSG_NOSIGNAL);
		return r;
	}
	if (send(sock, "y", 1, MSG_NOSIGNAL) == 1 && recv(sock, &word, 1, 0) == 1 && word == 's')
		return 0;
	pager_finish(*ret);
	pager_discard(path);
	return error_say(e, ECONNABORTED, "the restore failed after it had handed its memory over");
}

static int wait_for_restore(int listener, const char *path, struct pager **ret, struct error *e)
{
	for (;;) {
		struct pollfd p = {.fd = listener, .events = POLLIN};
		int r = job_check_abort(e);

		if (r < 0)
			return r;
		if (poll(&p, 1, 1000) <= 0)
			continue;
		cleanup_close int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (sock >= 0)
			return take_over(sock, path, ret, e);
	}
}

static int fetch(struct cli *c, struct lazy_from *from, struct pager *p, struct error *e)
{
	const struct fetch_options o = {
		.events = &c->events, .name = "the restored tree", .dial = lazy_dial, .ctx = from};
	int r = fetch_pages(p, &o, -1, 0, e);

	lazy_from_end(from);
	display_end(&c->display);
	if (r >= 0 && !c->o.json)
		display_fetched(&c->display);
	if (r < 0)
		error_prefix(e,
			     "pages of the restored tree are still missing, and what needs them waits: call "
			     "lazy-pages again");
	return r;
}

int verb_lazy_pages(struct cli *c, struct error *e)
{
	cleanup_free char *path = cli_lazy_state(c), *socket = cli_lazy_socket(c), *uuid = NULL;
	cleanup_free char *to = NULL;
	struct lazy_from from = {.dirfd = -1};
	struct pager *p = NULL;

	if (c->argc)
		return error_say(e, EINVAL, "lazy-pages takes no operands");
	if (c->o.page_server && (!c->o.address || !c->o.port))
		return error_say(e, EINVAL, "--page-server needs --address and --port");
	cleanup_close int dirfd = cli_open_images(c, e);

	if (dirfd < 0)
		return dirfd;
	uuid = lazy_image_uuid(dirfd, e);
	if (!uuid)
		return -e->code;
	cleanup_close int listener = lane_listen(socket, e);

	if (listener < 0)
		return listener;
	from = (struct lazy_from){.uuid = uuid, .dirfd = dirfd};
	int r = cli_link_options(c, &from.link, e);

	if (r < 0)
		return r;
	from.link.connect_ms = 1000;
	if (c->o.page_server)
		from.to = to = cli_page_server(c);
	worker_signals();
	r = c->o.daemon ? cli_background(c, e) : cli_write_pidfile(c, getpid(), e);

	if (r == 0)
		r = cli_tell_ready(c, e);
	if (r == 0)
		r = pager_is_left(path) ? pager_open(&p, path, e) : wait_for_restore(listener, path, &p, e);
	unlink(socket);
	if (r >= 0)
		r = fetch(c, &from, p, e);
	pager_free(p);
	return r;
}
