/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Established TCP connections: docs/tcp.md. */
#include <linux/tcp.h>

#include "state/patience.h"
#include "state/sockets/hold.h"
#include "state/sockets/inet.h"

#define TCP_HOLD_NAME 64 /* length of a hold's name, at most */

/* --- source --------------------------------------------------------------------------------------------- */
/* Connections of the frozen tree: from here on no packet of theirs passes. Called before any is captured. */
int tcp_hold(struct capture *c, struct error *e);
/* Of the tree that has just been stopped: listeners with connections that wait to be accepted. Requests for
 * more are held back until tcp_undo(). */
int tcp_find_backlog(struct capture *c, struct awaited *ret, struct error *e);
/* The tree runs: wait until none of these has any, or it is time (now_ns). */
void tcp_wait_accepted(const struct awaited *b, uint64_t until);
/* Fill m->socket->inet->connection. The target runs: what the destination can check. */
int tcp_capture(struct capture *c, struct fd_facts *f, const struct tcp_info *info,
		const union inet_address *local, FileDescription *m, struct error *e);

/* This address moves with the program. */
int tcp_moves(struct capture *c, const union inet_address *local, struct error *e);

/* For the engine, the target frozen. Packets for the connections are dropped here also after our death, by a
 * table called @kept (NULL: the name that is in the image). Until rescue_note_repair(NULL) is called our
 * death removes it again. */
int tcp_keep(struct capture *c, const char *kept, struct error *e);
/* After that: the copy here does not say anything to its peers any more, not even when it ends. It must not
 * run again without tcp_undo(), whatever happens to us. All are tried. */
int tcp_silence(struct capture *c, struct error *e);
/* The target goes on here, or not at all after an error: nothing of the above is left. */
int tcp_undo(struct capture *c, struct error *e);
/* What has come for the connections since the freeze, or the last time, and was dropped: appended. */
void tcp_take_packets(struct capture *c, ProtobufCBinaryData **list, size_t *n);
/* Are there, or may there be? */
bool tcp_has_packets(const struct capture *c);
/* Nobody knows: all stays as it is. */
void tcp_forsake(struct capture *c);
void tcp_capture_free(struct capture *c);
/* Addresses that move with the program, and whom their sockets talk to; as text, some more than once. */
typedef void tcp_address_fn(void *ctx, const char *local, const char *peer);
void tcp_each_moving(struct capture *c, tcp_address_fn *each, void *ctx);
/* A migration is decided: without its kept table. */
int tcp_gone(const char *uuid, struct error *e);
/* How hold.h names a connection. */
void tcp_tuple(const union inet_address *local, const union inet_address *peer, struct hold_tuple *ret);
/* Name of the kept table of a migration. */
void tcp_kept_name(char name[TCP_HOLD_NAME], const char *uuid);

/* --- destination ---------------------------------------------------------------------------------------- */
int tcp_check(struct rebuild *r, const FileDescription *m, struct error *e);
/* As it was, in repair mode: it says nothing until tcp_release(). */
int tcp_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e);
/* The program starts. Every connection is tried; the first error is told. */
int tcp_release(struct rebuild *r, struct error *e);
/* Hand in such packets. Before tcp_release(): it does so when it is time. They are the caller's again. */
void tcp_put_packets(struct rebuild *r, const ProtobufCBinaryData *list, size_t n);
/* As tcp_each_moving(), once all records are there. */
void tcp_each_coming(struct rebuild *r, tcp_address_fn *each, void *ctx);
void tcp_rebuild_free(struct rebuild *r);
