/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Captures of one target that build on each other: pre-dump, pre-dump, dump.
 *
 * A chain knows which directory its last image went to.  An image that names another parent, or none, cannot
 * hold only what changed since the last one: the chain then starts anew with a full image, and says so. After
 * a failure the session is closed, because pages that were taken from the tracker but never written would be
 * missing ever after.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <jansson.h>

#include "base/error.h"
#include "base/events.h"
#include "engine/session.h"
#include "migrate/link.h"
#include "service/script.h"
#include "stream/stream.h"

enum chain_op {
	CHAIN_PREDUMP,
	CHAIN_DUMP,
};

struct chain_request {
	enum chain_op op;
	struct session_options session; /* strings are the request's; hooks are set by chain_run */
	const char *parent;             /* relative to the images directory, or NULL */
	enum session_end end;
	struct script script;
	int log_level;
	int dirfd;                /* images directory */
	int page_server;          /* connected socket, or -1 */
	struct link_options link; /* lazy: who may fetch them */
	bool lazy; /* page_server listens: pages stay in the target until somebody has fetched them */
};
void chain_request_init(struct chain_request *r);
/* For the way to a keeper; descriptors travel beside it. The unpacked request points into @m. */
json_t *chain_request_pack(const struct chain_request *r);
int chain_request_unpack(const json_t *m, struct chain_request *ret, struct error *e);

/* What a chain needs of the engine; tests have their own. */
struct chain_ops {
	int (*open)(struct session **ret, const struct session_options *o, const struct events *ev,
		    struct error *e);
	void (*set_options)(struct session *s, const struct session_options *o);
	int (*predump)(struct session *s, const struct chain_request *r, const char *parent, struct error *e);
	int (*dump)(struct session *s, const struct chain_request *r, const char *parent, struct error *e);
	void (*close)(struct session *s);
};
extern const struct chain_ops chain_engine_ops;

struct chain {
	const struct chain_ops *ops;
	struct session *session;
	dev_t dev; /* of the last image's directory */
	ino_t ino;
	struct hooks hooks;
	struct script script;
};

/* Carry out @r. *ret_anew, if a parent was named but a full image was made. The strings of @r must live as
 * long as the chain (or until the next request). */
int chain_run(struct chain *c, const struct chain_request *r, const struct events *ev, bool *ret_anew,
	      struct error *e);
void chain_close(struct chain *c);
