/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * More descriptors than one process may have open.
 *
 * What a tree has open is made by one process, this one, and handed to many.  When half of what it may have
 * is open here, a *holder* is made: a process that does nothing, with a copy of our table, of which it keeps
 * what is in stock.  Then ours are closed.  What is needed here once more is fetched back with
 * pidfd_getfd(2), and the processes of the tree fetch theirs from the holder in the same way.  Holders die
 * with the stock, and with us.
 *
 * A holder shares our memory (CLONE_VM), so that making one costs the copy of a table and no page of ours is
 * copied later.  It runs on a stack of its own, with every signal blocked, and calls nothing that could fail:
 * it would write our errno.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct fd_stock {
	struct fd_kept {
		int here;        /* our number, or -1 */
		int there;       /* its number in the holder */
		uint32_t holder; /* index + 1, 0: none has it */
	} * v;
	size_t n, cap;
	size_t n_here, room; /* of those here there may be so many */
	struct fd_holder {
		pid_t pid;
		int pidfd;
		void *stack;
	} * holders;
	size_t n_holders, cap_holders;
	/* Is this process id needed for something else? May be NULL. */
	bool (*wanted)(void *ctx, pid_t pid);
	void *ctx;
};

/* Raises our soft limit as far as it goes.  @s is zero, but for the last two. */
int fd_stock_init(struct fd_stock *s, struct error *e);
/* Takes @fd over. Returns its place, never 0. */
uint32_t fd_stock_add(struct fd_stock *s, int fd);
/* Our descriptor of it, fetched back if need be: valid until the next fd_stock_trim(). */
int fd_stock_get(struct fd_stock *s, uint32_t place, struct error *e);
/* Where processes fetch it from. */
void fd_stock_where(const struct fd_stock *s, uint32_t place, pid_t *ret_pid, int *ret_fd);
/* Close ours. A copy in a holder stays open as long as the stock. */
void fd_stock_close(struct fd_stock *s, uint32_t place);
/* Make room here, if there is little. */
int fd_stock_trim(struct fd_stock *s, struct error *e);
/* All of it is closed when this returns, here and elsewhere. It can be filled again. */
void fd_stock_free(struct fd_stock *s);
