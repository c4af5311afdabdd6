/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What following a program with a backend costs here, measured on a child of ours with some memory. */
#include <stdint.h>

#include "base/error.h"
#include "track/backend.h"

struct backend_cost {
	uint64_t round_ns_gib; /* a round over 1 GiB of which nothing was written: asking, and comparing where
				  the backend is not sure */
	uint64_t dirty_ns_gib; /* the same when all was written (without copying it) */
	uint64_t final_ns_gib; /* the last pass over 1 GiB of which nothing was written */
	uint64_t store_ns; /* what the first store to a page after a round costs the program more than others
			    */
	uint64_t stop_ns;  /* stopping one thread for a round and letting it go; 0: not needed */
};
/* Takes about 0.2 s. Needs ptrace of own children. */
int backend_measure(const struct backend *b, struct backend_cost *ret, struct error *e);
