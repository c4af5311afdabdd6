/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The frozen target and the copy, page by page. */
#include "engine/source.h"
#include "shadow.h"

struct comparison {
	const struct shadow *shadow;
	uint64_t compared, different; /* pages */
	char *text;                   /* where the first difference is */
	size_t size;
};

/* Private memory of all processes; and that the layout the engine has is the one that is there. */
int compare_processes(struct comparison *c, struct session *s, struct error *e);
/* Shared memory objects, through a descriptor of the object. */
int compare_objects(struct comparison *c, struct session *s, struct error *e);
/* The last pages of a frozen target into the stream, without the rest of its state. */
int stress_last_pages(struct session *s, struct stream_out *out, struct error *e);
