/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A time by which a step must be over. When it passes, this process is asked to stop as by a cancel
 * (job_abort()), so that whatever it waits for ends; the error then says the real reason.
 */
#include <stdint.h>

#include "base/error.h"

/* @ms 0: none. One at a time; @why is a sentence that stays valid. */
void deadline_set(uint64_t ms, const char *why);
/* Not needed any more (or too late). */
void deadline_clear(void);
/* If it was the deadline that ended this, say so: returns -ETIMEDOUT then, else @r. */
int deadline_explain(int r, struct error *e);
