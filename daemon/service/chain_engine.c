/* SPDX-License-Identifier: Apache-2.0 */
#include "service/chain.h"

#include <errno.h>
#include <string.h>

#include "migrate/lazy_server.h"

/* Where the images go. @parent: the image before, or NULL; at a page server it is looked up there. */
static int open_out(struct stream_out **ret, const struct chain_request *r, const char *parent,
		    struct error *e)
{
	if (r->page_server >= 0 && !r->lazy)
		return stream_out_page_server(ret, r->dirfd, r->page_server, parent, e);
	return stream_out_dir(ret, r->dirfd, parent, e);
}

static int predump(struct session *s, const struct chain_request *r, const char *parent, struct error *e)
{
	struct stream_out *out = NULL;
	int code = open_out(&out, r, parent, e);

	if (code == 0)
		code = session_predump(s, out, e);
	stream_out_free(out);
	return code;
}

static int read_page(void *ctx, pid_t pid, uint64_t addr, uint64_t length, void *data, struct error *e)
{
	return session_read(ctx, pid, addr, length, data, e);
}

static void begun(void *ctx)
{
	session_stop_behind(ctx);
}

static int serve(void *ctx, struct session *s, bool *ret_begun, struct error *e)
{
	const struct chain_request *r = ctx;
	const struct lazy_server server = {
		.listener = r->page_server,
		.link = r->link,
		.uuid = session_uuid(s),
		.answerer = {.read = read_page, .ctx = s, .events = session_events(s)},
		.begun = begun,
		.ctx = s,
	};

	return lazy_serve(&server, ret_begun, e);
}

static int dump(struct session *s, const struct chain_request *r, const char *parent, struct error *e)
{
	struct stream_out *out = NULL;
	int code = open_out(&out, r, parent, e);

	if (code == 0 && r->lazy)
		code = session_dump_lazy(s, out, r->end, &(struct session_serve){serve, (void *)r}, e);
	else if (code == 0)
		code = session_dump(s, out, r->end, e);
	stream_out_free(out);
	return code;
}

const struct chain_ops chain_engine_ops = {
	.open = session_open,
	.set_options = session_set_options,
	.predump = predump,
	.dump = dump,
	.close = session_close,
};
