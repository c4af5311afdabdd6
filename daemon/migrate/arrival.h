/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The destination's journal, for those who ask, and for what its dead left behind. */
#include "base/error.h"
#include "base/events.h"
#include "migrate/journal.h"

/* What became of it: "pending", "running", "aborted" or "unknown" (static strings). If its process has died
 * the matter is decided here and now, and what is there of the tree killed or let go accordingly. */
const char *arrival_answer(const char *dir, const char *uuid, const struct events *ev);
/* The source knows: the entry has served its purpose, if it is final. */
void arrival_forget(const char *dir, const char *uuid, const struct events *ev);
/* Decide about everything whose process has died, and clean up. Returns how many there were. */
size_t arrivals_recover(const char *dir, const struct events *ev);
