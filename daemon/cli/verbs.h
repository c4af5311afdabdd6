/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The verbs of ferry: one row in verbs.c, one file each. */
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct cli;

enum verb_bit {
	VERB_CHECK = 1 << 0,
	VERB_DUMP = 1 << 1,
	VERB_PREDUMP = 1 << 2,
	VERB_RESTORE = 1 << 3,
	VERB_PAGE_SERVER = 1 << 4,
	VERB_MIGRATE = 1 << 5,
	VERB_SHOW = 1 << 6,
	VERB_STATUS = 1 << 7,
	VERB_CANCEL = 1 << 8,
	VERB_TRACK = 1 << 9,
	VERB_KEYS = 1 << 10,
	VERB_RESUME = 1 << 11,
	VERB_REPORT = 1 << 12,
	VERB_LAZY_PAGES = 1 << 13,
	VERB_DEDUP = 1 << 14,
};
#define VERB_CAPTURES (VERB_DUMP | VERB_PREDUMP | VERB_MIGRATE)
#define VERB_TRACKS   (VERB_CAPTURES | VERB_TRACK)
#define VERB_IMAGES                                                                                 \
	(VERB_DUMP | VERB_PREDUMP | VERB_RESTORE | VERB_PAGE_SERVER | VERB_LAZY_PAGES | VERB_SHOW | \
	 VERB_DEDUP)
#define VERB_SERVES (VERB_DUMP | VERB_PAGE_SERVER | VERB_LAZY_PAGES)

struct verb {
	const char *name;
	const char *operands; /* for the usage text: "PID", "DIR" or "" */
	uint32_t bit;
	/* The program's exit code, or -errno with @e filled. */
	int (*run)(struct cli *c, struct error *e);
	const char *help; /* one line */
};

extern const struct verb verbs[]; /* ends with a NULL name */
const struct verb *verb_find(const char *name);
void verbs_usage(FILE *f);

int verb_check(struct cli *c, struct error *e);
int verb_dump(struct cli *c, struct error *e);
int verb_predump(struct cli *c, struct error *e);
int verb_restore(struct cli *c, struct error *e);
int verb_page_server(struct cli *c, struct error *e);
int verb_lazy_pages(struct cli *c, struct error *e);
int verb_migrate(struct cli *c, struct error *e);
int verb_show(struct cli *c, struct error *e);
int verb_status(struct cli *c, struct error *e);
int verb_cancel(struct cli *c, struct error *e);
int verb_resume(struct cli *c, struct error *e);
int verb_track(struct cli *c, struct error *e);
int verb_keys(struct cli *c, struct error *e);
int verb_report(struct cli *c, struct error *e);
int verb_dedup(struct cli *c, struct error *e);
