/* SPDX-License-Identifier: Apache-2.0 */
/* ferry report: what was kept of migrations. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "service/msg.h"

static int list(const char *dir, FILE *f)
{
	json_t *ids = report_list(dir);

	for (size_t i = 0; i < json_array_size(ids); i++) {
		struct error why = ERROR_INIT;
		const char *id = json_string_value(json_array_get(ids, i));
		json_t *r = report_read(dir, id, &why);

		fprintf(f, "%s  %s to %s: %s\n", id, msg_str(r, "program", "?"), msg_str(r, "to", "?"),
			!r                                          ? why.text
			: json_is_true(json_object_get(r, "moved")) ? "moved"
								    : msg_str(r, "failure", "did not move"));
		json_decref(r);
	}
	if (!json_array_size(ids))
		fprintf(f, "no reports in %s\n", dir);
	json_decref(ids);
	return 0;
}

/* As it was shown when it happened. */
static void show(struct cli *c, const json_t *r)
{
	const json_t *events = json_object_get(r, "events");

	c->display.verb = "moved";
	cleanup_free char *where = xasprintf("to %s", msg_str(r, "to", "?"));

	c->display.where = where;
	snprintf(c->display.program, sizeof(c->display.program), "%s", msg_str(r, "program", "?"));
	for (size_t i = 0; i < json_array_size(events); i++) {
		const json_t *ev = json_array_get(events, i);

		if (!strcmp(msg_str(ev, "event", ""), "log"))
			fprintf(c->display.out, "  (%s)\n", msg_str(ev, "text", ""));
		else
			display_event(&c->display, ev);
	}
	display_end(&c->display);
	if (json_object_get(r, "failure"))
		fprintf(c->display.out, "it did not move: %s\n", msg_str(r, "failure", ""));
	c->display.where = NULL;
}

static int write_file(const char *name, bool (*write)(FILE *, const json_t *), const json_t *r,
		      struct error *e)
{
	FILE *f = fopen(name, "we");

	if (!f)
		return error_set(e, errno, "write %s", name);
	bool good = write(f, r);

	if (fclose(f) != 0 || !good)
		return error_set(e, errno ? errno : EIO, "write %s", name);
	return 0;
}

int verb_report(struct cli *c, struct error *e)
{
	const char *dir = c->o.report_dir;
	int r = 0;

	if (c->argc > 1)
		return error_say(e, EINVAL, "report takes one id");
	if (!c->argc && (c->o.svg || c->o.html))
		return error_say(e, EINVAL, "of which report? (\"ferry report\" lists them)");
	if (!c->argc)
		return list(dir, c->display.out);
	json_t *report = report_read(dir, c->argv[0], e);

	if (!report)
		return -e->code;
	if (c->o.svg)
		r = write_file(c->o.svg, report_svg, report, e);
	if (r == 0 && c->o.html)
		r = write_file(c->o.html, report_html, report, e);
	if (c->o.json)
		json_dumpf(report, c->display.out, JSON_COMPACT | JSON_REAL_PRECISION(9));
	else if (!c->o.svg && !c->o.html)
		show(c, report);
	json_decref(report);
	return r;
}
