/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a peer may take here (restore_limits), while a tree is rebuilt. -EDQUOT, with the numbers: too much.
 */
#include "base/error.h"
#include "proto/image.pb-c.h"

struct restore;
struct restore_limits;

/* Memory that processes share: what each rebuild has taken, so that the limits hold for all together that are
 * for one peer. NULL: it cannot be had. */
struct allowance_table *allowance_table_new(size_t slots);
/* Nothing has been taken there (any more). NULL-safe. */
void allowance_table_clear(struct allowance_table *t, size_t slot);
/* The slot of @l is for this peer. Nothing without a table. */
void allowance_claim(const struct restore_limits *l, const char *peer);

/* Announced, before anything is made. */
int allowance_inventory(struct restore *r, const Ferry__Inventory *i, struct error *e);
int allowance_tree(struct restore *r, const Ferry__Tree *t, struct error *e);
/* @bytes of page data have come. */
int allowance_take(struct restore *r, uint64_t bytes, struct error *e);
/* More pages will come when it runs. */
int allowance_missing(struct restore *r, struct error *e);
