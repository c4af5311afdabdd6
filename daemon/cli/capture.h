/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What dump, pre-dump and migrate have in common. */
#include "cli/cli.h"
#include "service/chain.h"

/* Check target and images directory, fill @ret from the options. Strings are of @c; images_dir of the script
 * is malloc'ed, and so freed by capture_deinit, which closes the descriptors, too. */
int capture_init(struct cli *c, enum chain_op op, struct chain_request *ret, struct error *e);
void capture_deinit(struct chain_request *r);
/* Refuse a target that can never be captured. */
int capture_check_target(pid_t pid, struct error *e);
