/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a peer may take here (restore_limits), while a tree is rebuilt. -EDQUOT, with the numbers: too much.
 */
#include "base/error.h"
#include "proto/image.pb-c.h"

struct restore;

/* Announced, before anything is made. */
int allowance_inventory(const struct restore *r, const Ferry__Inventory *i, struct error *e);
int allowance_tree(const struct restore *r, const Ferry__Tree *t, struct error *e);
/* @bytes of page data have come. */
int allowance_take(struct restore *r, uint64_t bytes, struct error *e);
/* More pages will come when it runs. */
int allowance_missing(struct restore *r, struct error *e);
