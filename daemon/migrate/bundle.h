/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Several connections that look like one: what goes in at one end comes out at the other in the same order,
 * or not at all.  Bytes: docs/migration-protocol.md, "Several connections".
 */
#include <sys/types.h>

#include "base/error.h"

#define BUNDLE_MAX   16u
#define BUNDLE_CHUNK 65536u

/* Hand @n connected stream sockets to a process of their own. Takes them over, also on failure. Returns a
 * blocking stream socket; closing it ends all of them in order, and then the process, which is a child of the
 * caller. If one of them fails, all of them end. */
int bundle_start(const int *socks, unsigned n, pid_t *ret_pid, struct error *e);
