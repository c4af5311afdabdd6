/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What of the machine ferry needs or can use, each found out by trying. */
#include <stdbool.h>
#include <stddef.h>

struct feature {
	const char *name;
	const char *what; /* for people */
	bool needed;      /* the main job cannot run without */
	bool listed;      /* a row of ferry check */
	/* 0: it is there; -errno with the reason in @why. */
	int (*probe)(char *why, size_t why_size);
};

extern const struct feature features[]; /* ends with a NULL name */
/* A name of --feature that is known but nothing ferry does. */
bool feature_is_foreign(const char *name);
