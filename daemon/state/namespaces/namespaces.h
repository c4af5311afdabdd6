/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Namespaces other than the caller's own: refused before the freeze. Leaves no records. */
#include "state/kind.h"

extern const struct state_kind kind_namespaces;
