/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/capture.h"

#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "freeze/tree.h"
#include "migrate/link.h"

/* Also done by the engine; here because a keeper is nobody's descendant, so that it could not see that the
 * target is its starter's ancestor. */
int capture_check_target(pid_t pid, struct error *e)
{
	return tree_check_root(pid, e);
}

static int connect_page_server(struct cli *c, struct chain_request *r, struct error *e)
{
	struct link_options o;
	struct link l;
	int code = cli_link_options(c, &o, e);

	if (code < 0)
		return code;
	if (!c->o.address || !c->o.port)
		return error_say(e, EINVAL, "--page-server needs --address and --port");
	cleanup_free char *to = cli_page_server(c);
	code = link_connect(to, &o, GRANT_PAGE_SERVE, &l, e);

	if (code >= 0 && l.beyond && !l.encrypted)
		log_line(&c->log, 2, "the link to the page server is not encrypted (--insecure)");
	r->page_server = l.sock; /* its relay, if there is one, ends with it */
	return code;
}

/* Its pages stay in the target, whoever restores the image fetches them. */
static int serve_lazily(struct cli *c, struct chain_request *r, struct error *e)
{
	if (c->o.page_server)
		return error_say(
			e, EINVAL,
			"--lazy-pages keeps pages in the target, --page-server sends them away: not both");
	if (c->o.leave_running)
		return error_say(
			e, EINVAL,
			"with --lazy-pages the target stands still until its pages have been fetched: it "
			"cannot be left running");
	int code = cli_link_options(c, &r->link, e);

	if (code < 0)
		return code;
	r->page_server = cli_listen(c, e);
	r->lazy = true;
	return MIN(r->page_server, 0);
}

/* A keeper has another working directory than its clients. What is no file (a script with arguments) stays as
 * it is. */
static void make_absolute(char **path)
{
	char *full = *path && **path != '/' ? realpath(*path, NULL) : NULL;

	if (!full)
		return;
	free(*path);
	*path = full;
}

int capture_init(struct cli *c, enum chain_op op, struct chain_request *ret, struct error *e)
{
	pid_t pid = 0;

	chain_request_init(ret);
	if (c->argc || !c->o.tree)
		return error_say(e, EINVAL,
				 c->argc ? "%s takes the process with --tree PID, nothing else"
					 : "%s needs --tree PID",
				 c->verb->name);
	int r = cli_target(c, &pid, e);

	if (r == 0)
		r = cli_check_empty_ns(c, e);
	if (r < 0)
		return r;
	make_absolute(&c->o.freeze_cgroup);
	make_absolute(&c->o.root);
	make_absolute(&c->o.action_script);
	make_absolute(&c->o.keys);
	make_absolute(&c->o.tls_cacert);
	make_absolute(&c->o.tls_cert);
	make_absolute(&c->o.tls_key);
	cli_session_options(c, &ret->session);
	r = cli_on_stall(c, &ret->session.on_stall, e);
	if (r < 0)
		return r;
	ret->session.pid = pid;
	ret->op = op;
	ret->parent = c->o.prev_images_dir;
	ret->end = c->o.leave_running ? SESSION_RUN : c->o.leave_stopped ? SESSION_STOP : SESSION_KILL;
	ret->script.path = c->o.action_script;
	ret->script.images_dir = cli_images_path(c);
	ret->log_level = c->log.level;
	ret->dirfd = cli_open_images(c, e);
	if (ret->dirfd < 0)
		return ret->dirfd;
	if (faccessat(ret->dirfd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return error_set(e, errno, "cannot write to the images directory %s", c->o.images_dir);
	r = capture_check_target(pid, e);
	if (r == 0 && c->o.lazy_pages)
		return serve_lazily(c, ret, e);
	return r == 0 && c->o.page_server ? connect_page_server(c, ret, e) : r;
}

void capture_deinit(struct chain_request *r)
{
	free((char *)r->script.images_dir);
	if (r->dirfd >= 0)
		close(r->dirfd);
	if (r->page_server >= 0)
		close(r->page_server);
}
