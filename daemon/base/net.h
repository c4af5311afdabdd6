/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* TCP: names to sockets. */
#include <stdbool.h>

#include "base/error.h"

/* "HOST", "HOST:PORT", "[v6]:PORT", "v6" into malloc'ed parts; a missing part is a copy of the default. */
int net_split(const char *text, const char *def_host, const char *def_port, char **ret_host, char **ret_port,
	      struct error *e);
/* Connected within @timeout_ms; blocking, CLOEXEC, no delay. */
int net_connect(const char *host, const char *port, int timeout_ms, struct error *e);
/* Listening, CLOEXEC; @host NULL: all addresses. */
int net_listen(const char *host, const char *port, struct error *e);
/* The port a socket is bound to. */
int net_port(int sock);
/* Is the socket's own address a loopback one? */
bool net_is_loopback(int sock);
