/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/latency.h"

#include <math.h>

#include "base/util.h"

static unsigned class_of(uint64_t ns)
{
	if (ns < LATENCY_STEPS)
		return (unsigned)ns;
	unsigned top = 63 - (unsigned)__builtin_clzll(ns); /* >= 4 */

	return (top - 3) * LATENCY_STEPS + (unsigned)(ns >> (top - 4)) % LATENCY_STEPS;
}

static uint64_t end_of(unsigned class)
{
	if (class < LATENCY_STEPS)
		return class;
	unsigned top = class / LATENCY_STEPS + 3;

	return ((uint64_t)(LATENCY_STEPS + class % LATENCY_STEPS + 1) << (top - 4)) - 1;
}

void latency_add(struct latency *l, uint64_t ns)
{
	l->count[class_of(ns)]++;
	l->n++;
	l->max = MAX(l->max, ns);
}

uint64_t latency_at(const struct latency *l, double percent)
{
	uint64_t want = (uint64_t)ceil((double)l->n * percent / 100), seen = 0;

	for (unsigned i = 0; i < LATENCY_CLASSES && l->n; i++) {
		seen += l->count[i];
		if (seen >= want && seen)
			return MIN(end_of(i), l->max);
	}
	return 0;
}
