/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "cli/cli.h"

/* A connection to a ferryd of root that may do this for us; -1: do it ourselves. */
int errand_connect(const struct cli *c);
/* Its exit code, or -errno if it was not begun. @argv: the call, [0] the verb; c->argv: its operands. */
int errand_run(const struct cli *c, int sock, int argc, char **argv, struct error *e);
