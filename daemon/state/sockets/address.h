/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Addresses that move with a program: docs/tcp.md. */
#include "state/sockets/inet.h"

/* Is it one of this host? */
bool address_is_here(const union inet_address *a);
/* Neither loopback nor link-local. */
bool address_can_move(const union inet_address *a);
/* Can it be had here? There is an interface on the way to @peer. */
int address_check(const union inet_address *a, const union inet_address *peer, struct error *e);
/* Add it to that interface, and tell the neighbours: also when it is here already, as they may think of
 * another host, and whoever added it may have died before it told them. */
int address_take(const union inet_address *a, const union inet_address *peer, struct error *e);
/* Take it from the interface that has it. 0 too when none has. */
int address_drop(const union inet_address *a, struct error *e);
/* The same, of addresses as inet_ntop(3) writes them. */
int address_take_text(const char *a, const char *peer, struct error *e);
int address_drop_text(const char *a, struct error *e);
void address_text(const union inet_address *a, char *ret, size_t size);
