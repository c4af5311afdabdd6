/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* --action-script: a program that is run at the points of base/hooks.h. */
#include "base/hooks.h"

struct script {
	const char *path;       /* NULL: none */
	const char *images_dir; /* absolute */
};

/* Run it with CRTOOLS_SCRIPT_ACTION, CRTOOLS_IMAGE_DIR and (if @root is not 0) CRTOOLS_INIT_PID. A non-zero
 * exit fails. */
int script_run(const struct script *s, const char *action, pid_t root, struct error *e);
/* @s must outlive the hooks. */
struct hooks script_hooks(struct script *s);
