/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Controlling terminals, for the engine: a session's leader must have its before its children are cloned. */
#include "state/kind.h"

/* Source: index of the pseudo-terminal that controls the process plus 1, 0: none. */
int terminal_of(pid_t pid);
/* Destination: a descriptor of the host for the slave of the pair that was @index; stays the host's. */
int terminal_slave(struct rebuild *r, int index, int *ret_fd, struct error *e);
