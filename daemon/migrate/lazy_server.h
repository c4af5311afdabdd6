/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Pages for one session of "ferry lazy-pages", which connects: docs/post-copy.md, "As separate verbs". */
#include "migrate/answer.h"
#include "migrate/link.h"

struct lazy_server {
	int listener;
	struct link_options link; /* who is served beyond loopback: GRANT_PAGE_SERVE */
	const char *uuid;         /* of the image that the pages belong to */
	struct answerer answerer;
	/* The first one who knows the image has come: what was restored from it may run from now on. In a
	 * process of its own. NULL: nothing to do. */
	void (*begun)(void *ctx);
	void *ctx;
};

/* 0: the other side has all it needs. -ECANCELED: told to stop. *ret_begun: somebody had come. */
int lazy_serve(const struct lazy_server *s, bool *ret_begun, struct error *e);
/* Serve one connection (@sock stays the caller's) that is already up: an answer_outcome, or -errno. */
int lazy_serve_connection(const struct lazy_server *s, int sock, struct error *link, struct error *e);
/* The other end. The uuid of another image: -ESTALE. */
int lazy_ask(int sock, const char *uuid, int lane, struct peer *ret, struct error *e);

/* Pages of an image directory, to be given to an answerer's read (@ctx: the stream). */
struct stream_in;
int lazy_read_image(void *ctx, pid_t pid, uint64_t addr, uint64_t length, void *data, struct error *e);
/* The uuid of the image that @in is of, malloc'ed; it is read for that. NULL with @e: there is none. */
char *lazy_image_uuid(int dirfd, struct error *e);
