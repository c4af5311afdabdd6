/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The copy: what a destination would hold. Pages by space (process or object), id and address. */
#include <stdbool.h>
#include <stdint.h>

#include "base/page_set.h"
#include "stream/stream.h"

struct shadow;

struct shadow_counts {
	uint64_t pages;   /* arrived with content */
	uint64_t same;    /* of these: equal to what was there already */
	uint64_t dropped; /* that were there */
};

struct shadow *shadow_new(void);
void shadow_free(struct shadow *s);
/* A run as it came off the stream. */
void shadow_apply(struct shadow *s, const struct page_run *run, const void *data);
/* The page, or NULL: not there. */
const void *shadow_page(const struct shadow *s, uint32_t space, uint64_t id, uint64_t addr);
/* What is there of one process or object. Empty set for one that is not known. */
const struct page_set *shadow_set(const struct shadow *s, uint32_t space, uint64_t id);
struct shadow_counts shadow_counts(const struct shadow *s);
