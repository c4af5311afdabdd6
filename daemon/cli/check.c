/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/features.h"
#include "track/backend.h"
#include "track/measure.h"

static int one_feature(const char *name, struct error *e)
{
	char why[256] = "";

	for (const struct feature *f = features; f->name; f++)
		if (!strcmp(f->name, name))
			return f->probe(why, sizeof(why)) == 0
				       ? 0
				       : error_say(e, ENOTSUP, "%s is not there: %s", name, why);
	if (feature_is_foreign(name))
		return error_say(e, ENOTSUP, "%s is not there: ferry does not use it", name);
	return error_say(e, EINVAL, "%s is not a feature ferry knows", name);
}

static void row(struct cli *c, const char *name, bool there, const char *what, const char *why)
{
	if (c->o.json) {
		json_t *j = json_pack("{s:s,s:b,s:s,s:s}", "name", name, "there", there, "what", what, "why",
				      why);

		json_dumpf(j, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(j);
		return;
	}
	printf("  %-3s  %-26s %s\n", there ? "yes" : "NO", name, there || !*why ? what : why);
}

/* "0.9 ms/GiB a round, ..." */
static char *cost_text(const struct backend_cost *cost)
{
	char round[32], last[32], stop[32];

	display_ms(cost->round_ns_gib / 1e6, round);
	display_ms(cost->final_ns_gib / 1e6, last);
	display_ms(cost->stop_ns / 1e6, stop);
	return xasprintf("%s/GiB a round, %s/GiB frozen, %.2f us for the first store to a page%s%s", round,
			 last, cost->store_ns / 1e3,
			 cost->stop_ns ? ", stops the program for each round: " : "",
			 cost->stop_ns ? stop : "");
}

/* What following a program with it would cost here. */
static void measured(struct cli *c, const struct backend_info *info, const char *name, bool chosen)
{
	struct error e = ERROR_INIT;
	struct backend b = {0};
	struct backend_cost cost;
	int r = backend_open(info->name, c->o.backend_dir, &b, NULL, &e);

	if (r >= 0)
		r = backend_measure(&b, &cost, &e);
	if (c->o.json) {
		json_t *j = json_pack("{s:s,s:b,s:s,s:s,s:b,s:b}", "name", name, "there", 1, "what",
				      info->summary, "why", "", "runs", !!(info->caps & DIRTY_CAP_RUNNING),
				      "auto", (int)chosen);

		if (r >= 0)
			json_object_set_new(j, "cost",
					    json_pack("{s:f,s:f,s:f,s:f,s:f}", "round_ms_gib",
						      cost.round_ns_gib / 1e6, "dirty_round_ms_gib",
						      cost.dirty_ns_gib / 1e6, "frozen_ms_gib",
						      cost.final_ns_gib / 1e6, "first_store_us",
						      cost.store_ns / 1e3, "stop_ms", cost.stop_ns / 1e6));
		else
			json_object_set_new(j, "cost_why", json_string(e.text));
		json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(j);
	} else {
		cleanup_free char *text =
			r >= 0 ? cost_text(&cost) : xasprintf("what it costs is not known: %s", e.text);

		cleanup_free char *what =
			chosen ? xasprintf("%s: the one that auto takes", info->summary) : NULL;

		row(c, name, true, what ? what : info->summary, "");
		printf("  %-3s  %-26s %s\n", "", "", text);
	}
	backend_close(&b);
}

static void backends(struct cli *c)
{
	struct error e = ERROR_INIT;
	struct backend_info *all = NULL;
	size_t n = 0;

	if (backend_list(c->o.backend_dir, &all, &n, &e) < 0)
		row(c, "backends", false, "dirty tracking", e.text);
	const struct backend_info *best = NULL;

	for (size_t i = 0; i < n; i++)
		if (all[i].usable == 0 && (!best || all[i].priority > best->priority))
			best = &all[i];
	for (size_t i = 0; i < n; i++) {
		cleanup_free char *name = xasprintf("backend %s", all[i].name);

		if (all[i].usable == 0)
			measured(c, &all[i], name, &all[i] == best);
		else
			row(c, name, false, "", all[i].why);
	}
	free(all);
}

int verb_check(struct cli *c, struct error *e)
{
	const char *missing = NULL;

	if (c->argc)
		return error_say(e, EINVAL, "check takes no operands");
	for (size_t i = 0; i < c->o.feature.n; i++) {
		int r = one_feature(c->o.feature.v[i], e);

		if (r < 0)
			return r;
	}
	if (c->o.feature.n)
		return 0;
	for (const struct feature *f = features; f->name; f++) {
		char why[256] = "";

		if (!f->listed)
			continue;
		bool there = f->probe(why, sizeof(why)) == 0;

		row(c, f->name, there, f->what, why);
		if (!there && f->needed && !missing)
			missing = f->name;
	}
	backends(c);
	if (missing)
		return error_say(e, ENOTSUP, "ferry cannot work here: %s is missing", missing);
	if (!c->o.json)
		printf("Ready.\n");
	return 0;
}
