/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Before anything is sent: can what the target has be rebuilt at the destination?
 * The target runs on while we look, so a file that it had open may be gone, or have grown, when the
 * destination looks for it: a complaint counts only when several looks in a row bring one.
 */
#include <stdbool.h>
#include "base/error.h"
#include "engine/source.h"
#include "migrate/peer.h"

/* Target running. Sends the warm state (with_layout: mappings, too) and ends round 0, until the destination
 * is content; for some 1.4 s. -EREMOTEIO: it is not, and why. */
int look_until_content(struct peer *p, struct session *s, bool with_layout, struct error *e);
