/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A migration that does not take place: what stands in its way, and how it would go
 * (docs/migration-protocol.md). */
#include "migrate/migrate.h"
#include "migrate/peer.h"

/* Source. The target runs on and is followed for @duration_ms; nothing of it is copied. Emits what
 * session_observe emits, and at the end "prediction" {rounds, bytes, ms, downtime_ms, converges, mib_s}. An
 * error is what a migration would fail with, here or there, or -EAGAIN when the target ended before it was
 * known. */
int rehearsal_run(const struct migrate_options *o, uint64_t duration_ms, const struct events *ev,
		  struct error *e);
/* Destination: @first is the CHECK that the peer began with. Nothing is made. */
int rehearsal_serve(struct peer *p, const struct record *first, const struct restore_limits *l,
		    const struct events *ev, struct error *e);
