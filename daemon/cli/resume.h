/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Migrations whose process died when only the destination knew what became of them. */
#include "cli/cli.h"
#include "service/job.h"

/* After the worker of a migration of @pid has failed with @e: see whether it died at such a moment, and bring
 * the matter to its end. @moved: it had said that the target runs there. Returns 0 when the target has moved.
 */
int resume_after_death(struct cli *c, struct job *j, pid_t pid, bool moved, struct error *e);
