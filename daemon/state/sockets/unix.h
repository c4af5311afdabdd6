/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Unix sockets: what their files share. */
#include <sys/un.h>

#include "state/files/files.h"

/* --- source: what sock_diag(7) tells of one (unix_diag.c) -------------------------------------------------
 */
struct unix_info {
	uint64_t ino;
	int state;         /* TCP_ESTABLISHED, TCP_LISTEN, TCP_CLOSE */
	bool has_peer;     /* has, or had and it is closed */
	uint64_t peer;     /* ino; 0: closed, or not yet accepted */
	uint32_t shutdown; /* 1: receive, 2: send */
	uint32_t backlog;  /* of a listener */
	uint32_t *waiting; /* inos of clients that it has not accepted */
	size_t n_waiting;
};
/* Valid until the next call. -ENOENT: no such socket in this network namespace. */
int unix_diag_find(struct capture *c, uint64_t ino, const struct unix_info **ret, struct error *e);
/* Name of a socket that is not ours, or length 0. */
int unix_diag_name(struct capture *c, uint64_t ino, struct sockaddr_un *ret, socklen_t *ret_n,
		   struct error *e);

/* --- queues (unix_queue.c) ------------------------------------------------------------------------ */
int unix_queue_capture(struct capture *c, struct fd_facts *f, Ferry__UnixSocket *m, uint32_t shutdown,
		       struct error *e);
/* Send one message from @sender; @to: NULL when it is connected to the receiver. */
int unix_queue_send(struct rebuild *r, const FileDescription *m, const Ferry__UnixMessage *message,
		    int sender, const struct sockaddr_un *to, socklen_t to_n, struct error *e);

/* --- names at the destination (unix_name.c) ------------------------------------------------------- */
/* Bind @fd to the name of @m as it was: file with its mode and owner, or without its file. */
int unix_bind(struct rebuild *r, const FileDescription *m, int fd, struct error *e);
/* Bind to a bare name, for a moment: a file is gone when this returns. */
int unix_bind_sender(struct rebuild *r, const FileDescription *m, int fd, const ProtobufCBinaryData *name,
		     struct error *e);
/* Address of bound socket @fd that works from any directory and without its file. *ret_file: to be closed
 * when done, or -1. */
int unix_address_of(int fd, struct sockaddr_un *ret, socklen_t *ret_n, int *ret_file, struct error *e);

/* --- rebuild (unix_rebuild.c) --------------------------------------------------------------------- */
#define UNIX_NONE SIZE_MAX

struct stand_in {       /* for a peer or listener that is not there any more */
	uint32_t place; /* in the stock */
	size_t of;      /* index of the socket it serves */
	bool listener;
};

struct unix_rebuild { /* rebuild.sockets */
	bool filled;
	size_t n;
	struct index_map by_ino;
	struct stand_in *stand_ins;
	size_t n_stand_ins, cap_stand_ins;
	uint32_t *stand_in_of; /* by index: its peer's stand-in + 1 */
};

/* By index of the description in the image; all of unix_at's are not NULL where the others are asked. */
const FileDescription *unix_message_at(struct rebuild *r, size_t i);
const Ferry__UnixSocket *unix_at(struct rebuild *r, size_t i);      /* NULL: no unix socket */
int unix_fd_at(struct rebuild *r, size_t i);                        /* valid until files_trim() */
int unix_stand_in_fd(struct rebuild *r, size_t k, struct error *e); /* the same */
bool unix_is_dgram(struct rebuild *r, size_t i);
size_t unix_peer_of(struct rebuild *r, size_t i);
/* The other end of a two-way connection. */
size_t unix_partner_of(struct rebuild *r, size_t i);
int unix_fail(const FileDescription *m, const char *what, struct error *e); /* errno */
/* Connect @fd, of @m, to bound socket @bound of the host. */
int unix_connect(const FileDescription *m, int fd, int bound, struct error *e);
void unix_drop_stand_ins(struct rebuild *r);

/* --- who does it (unix_maker.c) ------------------------------------------------------------------- */
/* The process that SO_PEERCRED of socket @i named at the source. p NULL: not in the tree (any more), the host
 * does it. */
struct unix_maker {
	struct process *p;
	uint32_t uid, gid;
};
struct unix_maker unix_maker_of(struct rebuild *r, size_t i);
/* The same with a name. */
int unix_maker_connect_to(struct rebuild *r, const struct unix_maker *k, const FileDescription *m, int fd,
			  const struct sockaddr_un *a, socklen_t n, struct error *e);

/* --- streams to the journal (unix_journal.c) ------------------------------------------------------ */
/* Of a peer outside the tree: is it a log, which one can connect to again without further ado? */
bool unix_journal_is(int type, const struct sockaddr_un *name, socklen_t n);
void unix_journal_greeting(pid_t pid, const char *comm, Ferry__UnixSocket *u);
/* Is the peer outside the tree here, too? */
int unix_outside_check(const FileDescription *m, struct error *e);
int unix_journal_connect(struct rebuild *r, size_t i, const struct sockaddr_un *a, socklen_t n,
			 struct error *e);

#define UNIX_MAKER_PAIRS 128 /* at a time */
int unix_maker_socketpairs(struct rebuild *r, const struct unix_maker *k, const int *types, int (*ends)[2],
			   size_t n, struct error *e);
int unix_maker_listen(struct rebuild *r, const struct unix_maker *k, const FileDescription *m, int fd,
		      int backlog, struct error *e);
int unix_maker_connect(struct rebuild *r, const struct unix_maker *k, const FileDescription *m, int fd,
		       int bound, struct error *e);
