/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What ferryd does for users of this machine (docs/trust.md, "The control socket"): a call of ferry, as root,
 * with the verbs and options of a short list, with --owner, so that ferry refuses what is not theirs, and
 * with their standard output.  Who closes his connection cancels it.
 */
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "base/error.h"

#define ERRANDS_MAX     32
#define ERRANDS_OF_USER 4 /* at work for one user at the same time */
#define ERRAND_ARGS     48

struct daemon;

struct errand {
	int sock;  /* -1: who asked has gone */
	pid_t pid; /* 0: nothing has been asked yet, or (sock -1) free */
	uid_t uid;
	uint64_t since;
};

/* The arguments that ferry gets, malloc'ed, for a list that a user sent; NULL with the reason: a verb or an
 * option that is not for users. [0] is the verb. */
char **errand_args(const json_t *list, uid_t uid, const char *keys, const char *libdir, struct error *e);
void errand_args_free(char **args);

/* @sock is taken over. */
void errands_add(struct daemon *d, int sock, uid_t uid);
size_t errands_poll(const struct daemon *d, struct pollfd *p); /* ERRANDS_MAX of them */
void errands_handle(struct daemon *d, const struct pollfd *p);
/* Was that child one of them? */
bool errands_reaped(struct daemon *d, pid_t pid, int status);
void errands_cancel(struct daemon *d);
