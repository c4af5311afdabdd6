/* SPDX-License-Identifier: Apache-2.0 */
#include "service/chain.h"

#include <errno.h>
#include <string.h>

/* Where the images go. @parent: the image before, or NULL; at a page server it is looked up there. */
static int open_out(struct stream_out **ret, const struct chain_request *r, const char *parent,
		    struct error *e)
{
	if (r->page_server >= 0)
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

static int dump(struct session *s, const struct chain_request *r, const char *parent, struct error *e)
{
	struct stream_out *out = NULL;
	int code = open_out(&out, r, parent, e);

	if (code == 0)
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
