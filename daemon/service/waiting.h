/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Connections that have not said anything yet. They cost a descriptor each and no process; when there are too
 * many, the one that has been silent longest goes, so that a crowd of them keeps nobody out who speaks at
 * once.
 */
#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#define WAITING_MAX 512

struct waiting {
	int sock;
	uint64_t since; /* ns */
	char name[80];  /* address and port */
};

struct waiting_room {
	struct waiting w[WAITING_MAX]; /* oldest first */
	size_t n;
};

/* Takes @sock over. A full room closes its oldest: then *ret_gone is a copy of it (its sock is closed), else
 * its sock is -1. */
void waiting_add(struct waiting_room *r, int sock, const char *name, struct waiting *ret_gone);
/* Take out entry @i; the descriptor is the caller's. */
struct waiting waiting_take(struct waiting_room *r, size_t i);
/* One entry per connection, in order. Returns how many. */
size_t waiting_poll(const struct waiting_room *r, struct pollfd *p);
/* Milliseconds until the oldest has been silent for @limit_ms; -1: nobody waits. */
int waiting_left_ms(const struct waiting_room *r, int limit_ms, uint64_t now);
