/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What both sides say of themselves first, and whether it fits. */
#include "base/error.h"
#include "engine/restore.h"
#include "engine/session.h"
#include "migrate/peer.h"

/* Of this machine. Strings are not copied: @host (256 bytes) is filled in, @life is the caller's. */
void hello_fill(Ferry__PeerHello *h, char *host, char *life);
/* Of a source: what it wants to move, and how. */
void hello_fill_source(Ferry__PeerHello *h, const struct session_options *o);
/* Source: can what runs here run at @to? */
int hello_check(const Ferry__PeerHello *there, const char *to, struct error *e);
/* Destination: do we speak the same, and how is it to be restored? */
/* state.cgroup_root is malloc'ed, also on failure. */
int hello_accept(const Ferry__PeerHello *h, struct restore_options *ret, struct error *e);
