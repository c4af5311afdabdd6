/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How long faults took: counts in classes that are 1/16 of a power of two wide. */
#include <stdint.h>

#define LATENCY_STEPS   16
#define LATENCY_CLASSES (64 * LATENCY_STEPS)

struct latency {
	uint64_t n, max;
	uint32_t count[LATENCY_CLASSES];
};

void latency_add(struct latency *l, uint64_t ns);
/* The value that @percent of them do not exceed (upper end of its class, not more than the largest). 0: none.
 */
uint64_t latency_at(const struct latency *l, double percent);
