/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What all sockets have in common: options, buffers, filters. */
#include "state/files/files.h"

/* Source: allocates m->socket. @closed: a connection that arrives closed, of which only common options are
 * kept: there may be thousands, and reading all of them of each takes longer than everything else. */
int socket_capture(struct fd_facts *f, FileDescription *m, bool closed, struct error *e);
/* Destination: a socket of that family and type, CLOEXEC. */
int socket_make(const FileDescription *m, struct error *e);
/* Options; before bind, but for the ones that socket_finish() sets. */
int socket_apply(int fd, const FileDescription *m, struct error *e);
/* Buffer sizes, timeouts, filter: what would be in the way of filling and connecting. */
int socket_finish(int fd, const FileDescription *m, struct error *e);
/* Of these, the buffer sizes. */
int socket_buffers(int fd, const FileDescription *m, struct error *e);
/* Is this option, a number, in the image, and not 0? */
bool socket_wants(const FileDescription *m, int level, int name);
