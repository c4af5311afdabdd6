/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Messages between the parts of a job: one JSON object per packet of a unix SOCK_SEQPACKET socket, with up to
 * MSG_MAX_FDS descriptors.  Events have a member "event", requests "op", the end of a job is {"result":
 * {...}}.
 */
#include <jansson.h>
#include <stddef.h>

#include "base/error.h"

#define MSG_MAX_BYTES (64u << 10)
#define MSG_MAX_FDS   4

/* 0, or -errno (-EAGAIN with @nowait when the receiver does not keep up, -EPIPE when it is gone). Never
 * raises SIGPIPE. */
int msg_send(int sock, const json_t *m, const int *fds, size_t n_fds, bool nowait);
/* 1: a message; 0: end; -errno (-EPROTO: not a JSON object). Descriptors are CLOEXEC; @ret_fds (may be NULL)
 * has room for MSG_MAX_FDS, unused ones are -1. */
int msg_recv(int sock, json_t **ret, int *ret_fds);
void msg_close_fds(int *fds);

json_t *msg_error(const struct error *e);
/* Fill @e from what msg_error made. */
int msg_to_error(const json_t *m, struct error *e);
/* {"result": ...}: @e without code is success. */
json_t *msg_result(const struct error *e);

/* Members with a default for what is missing or of another type. */
const char *msg_str(const json_t *m, const char *key, const char *def);
int64_t msg_int(const json_t *m, const char *key, int64_t def);
double msg_num(const json_t *m, const char *key, double def);
