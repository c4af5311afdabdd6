/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The log of ferryd as entries of the journal, with fields to select by: ferryd(8). */
#include <stdbool.h>

#include "service/daemon.h"

/* Does the standard error output go to the journal? */
bool journald_is_stderr(void);
void journald_write(int level, const char *text, const struct log_about *about);
