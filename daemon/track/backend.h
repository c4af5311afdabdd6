/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Finding, checking and choosing backends (shared objects behind ferry/dirty_backend.h). */
#include "base/error.h"
#include "ferry/dirty_backend.h"

struct backend {
	const struct dirty_backend_ops *ops;
	void *handle;
	char *path;
	struct call_watch *watch; /* of calls.h; NULL: none */
};

/* A directory of plugins; NULL: paths_find("backends"). */
struct backend_info {
	char name[64];
	char path[512];
	int usable; /* 0: works here; else -errno */
	char why[256];
	uint32_t caps, kinds;
	uint32_t priority;
	char summary[128];
};

/* Load @name (or the best usable one for "auto") from @dir. Every defect of a plugin (missing symbol, wrong
 * ABI version, NULL slot, probe fails) is an error that names file and reason. For "auto" with none usable:
 * returns 1 and *ret_why (malloc'ed) says why each one is not: the caller then goes without tracking. "none"
 * is always accepted: returns 1. */
int backend_open(const char *name, const char *dir, struct backend *ret, char **ret_why, struct error *e);
void backend_close(struct backend *b);
/* All plugins of a directory with their verdicts. malloc'ed array. */
int backend_list(const char *dir, struct backend_info **ret, size_t *ret_n, struct error *e);
