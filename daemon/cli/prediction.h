/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a dry run said of a process, kept for the migration that may follow: <run directory>/predictions/PID,
 * the event "prediction" with the start time of the process, so that another one with the pid does not get
 * it.
 */
#include <jansson.h>
#include <sys/types.h>

/* Best effort: nothing depends on it. */
void prediction_save(pid_t pid, const json_t *prediction);
/* The last one for this very process, the caller's; NULL: none. */
json_t *prediction_find(pid_t pid);
void prediction_forget(pid_t pid);
