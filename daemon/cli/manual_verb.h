/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdbool.h>
#include <stdio.h>

/* The manual page of a verb; false: no such verb. */
bool manual_verb(const char *name, FILE *f);
