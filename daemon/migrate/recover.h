/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What ferryd does about migrations whose processes have died, on either side. */
#include "migrate/migrate.h"

/* Is there any? Cheap. */
bool recover_needed(const struct serve_options *o);
/* Decide about all of them; those whose destination does not answer are asked again and again, until none is
 * left or we are told to stop. Old entries are swept. */
int recover_run(const struct serve_options *o, const struct events *ev, struct error *e);
