/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration as a picture.  Above, for each round, what it sent (bars) and what was dirty when it ended,
 * which is what the next one sent (line); in the middle how fast pages went and were written; below, the
 * downtime, to scale by itself.
 */
#include "cli/report.h"

#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/display.h"
#include "cli/draw.h"
#include "service/msg.h"

#define HEIGHT 700
#define MIB    1048576.0
#define BAR    "#a9c6e3"
#define SENT   "#3d72a8"
#define LEFT   "#b5542a"
#define SPEED  "#3f8f4f"
#define DIRTY  "#7a3f9d"

static const char *const colours[] = {"#e3b505", "#3d72a8", "#7a3f9d", "#b5542a", "#3f8f4f"};

static const json_t *last_event(const json_t *report, const char *name)
{
	const json_t *events = json_object_get(report, "events");

	for (size_t i = json_array_size(events); i-- > 0;)
		if (!strcmp(msg_str(json_array_get(events, i), "event", ""), name))
			return json_array_get(events, i);
	return NULL;
}

static const json_t *round_at(const json_t *report, size_t n)
{
	const json_t *events = json_object_get(report, "events");

	for (size_t i = 0; i < json_array_size(events); i++) {
		const json_t *ev = json_array_get(events, i);

		if (!strcmp(msg_str(ev, "event", ""), "round") && n-- == 0)
			return ev;
	}
	return NULL;
}

/* MiB dirty at the end of a round: what came next. */
static double left_after(const json_t *report, size_t n)
{
	const json_t *next = round_at(report, n + 1), *frozen = last_event(report, "frozen");

	return next ? msg_num(next, "bytes", 0) / MIB : msg_num(frozen, "pages", 0) * PAGE_SIZE_BYTES / MIB;
}

static void round_bars(FILE *f, const struct panel *p, const json_t *report, double all)
{
	const json_t *r;

	for (size_t i = 0; (r = round_at(report, i)); i++) {
		double end = msg_num(r, "t_ms", 0) / 1000, begin = end - msg_num(r, "ms", 0) / 1000;
		double x = draw_x(MAX(begin, 0), all), w = draw_x(end, all) - x;
		double y = draw_y(p, &p->left, msg_num(r, "bytes", 0) / MIB);

		fprintf(f,
			"<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" "
			"stroke=\"%s\"/>\n",
			x, y, MAX(w, 1), p->bottom - y, BAR, SENT);
	}
}

/* Over each round flat. @rates: a member of the event, MiB/s; NULL: what was left at its end, joined by
 * lines. */
static void round_line(FILE *f, const struct panel *p, const struct axis *a, const json_t *report, double all,
		       const char *rate)
{
	const json_t *r;

	fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\" d=\"",
		a->colour);
	for (size_t i = 0; (r = round_at(report, i)); i++) {
		/* How fast it writes is known from the second round on. */
		if (!i && rate && !strcmp(rate, "dirty_mib_s"))
			continue;
		double end = msg_num(r, "t_ms", 0) / 1000, begin = MAX(end - msg_num(r, "ms", 0) / 1000, 0);
		double y = draw_y(p, a, rate ? msg_num(r, rate, 0) : left_after(report, i));

		if (rate)
			fprintf(f, "M%.1f %.1fH%.1f", draw_x(begin, all), y, draw_x(end, all));
		else
			fprintf(f, "%c%.1f %.1f", i ? 'L' : 'M', draw_x(end, all), y);
	}
	fputs("\"/>\n", f);
}

static double highest(const json_t *report, const char *member)
{
	const json_t *r;
	double most = 0;

	for (size_t i = 0; (r = round_at(report, i)); i++)
		most = MAX(most, member ? msg_num(r, member, 0) : left_after(report, i));
	return most;
}

/* One bar, a piece for each phase, with its name and time below. */
static void downtime(FILE *f, int y, const json_t *done)
{
	double all = msg_num(done, "downtime_ms", 0), at = 0;
	json_t *phases = json_object_get(done, "phases"), *v;
	const char *key;
	char b[32];
	size_t i = 0;

	if (all <= 0)
		return;
	fprintf(f, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">downtime %s</text>\n", DRAW_LEFT, y - 10,
		display_ms(all, b));
	json_object_foreach(phases, key, v)
	{
		double ms = json_number_value(v), x = draw_x(at, all), w = draw_x(at + ms, all) - x;
		const char *colour = colours[i % ARRAY_SIZE(colours)];
		size_t n = strlen(key);

		if (n > 3 && !strcmp(key + n - 3, "_ms"))
			n -= 3;
		fprintf(f, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"26\" fill=\"%s\"/>\n", x, y, w,
			colour);
		fprintf(f,
			"<rect x=\"%zu\" y=\"%d\" width=\"14\" height=\"8\" fill=\"%s\"/><text x=\"%zu\" "
			"y=\"%d\">%.*s %s</text>\n",
			DRAW_LEFT + i * 190, y + 40, colour, DRAW_LEFT + 20 + i * 190, y + 48, (int)n, key,
			display_ms(ms, b));
		at += ms;
		i++;
	}
}

bool report_svg(FILE *f, const json_t *report)
{
	const json_t *done = last_event(report, "done"), *events = json_object_get(report, "events");
	const json_t *end = json_array_get(events, json_array_size(events) - 1);
	double all = MAX(msg_num(end, "t_ms", 0) / 1000, 0.001);
	char when[64] = "";
	time_t t = (time_t)msg_int(report, "time", 0);
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&t, &tm));
	cleanup_free char *title =
		xasprintf("%s, to %s", msg_str(report, "program", "?"), msg_str(report, "to", "?"));
	cleanup_free char *note = xasprintf("%s; %s", when,
					    json_is_true(json_object_get(report, "moved"))
						    ? "moved"
						    : msg_str(report, "failure", "did not move"));
	struct panel above = {86, 320,
			      draw_axis(highest(report, "bytes") / MIB, 0.01, "MiB sent in the round", SENT),
			      draw_axis(highest(report, NULL), 0.01, "MiB dirty at its end", LEFT)};
	struct panel middle = {402, 532, draw_axis(highest(report, "mib_s"), 1, "MiB/s sent", SPEED),
			       draw_axis(highest(report, "dirty_mib_s"), 1, "MiB/s written", DIRTY)};

	draw_head(f, HEIGHT, title, note);
	draw_legend(f, DRAW_LEFT, 74, BAR, "sent in the round (left axis)");
	draw_legend(f, DRAW_LEFT + 260, 74, LEFT, "dirty when it ended (right axis)");
	draw_frame(f, &above, all);
	round_bars(f, &above, report, all);
	round_line(f, &above, &above.right, report, all, NULL);
	draw_legend(f, DRAW_LEFT, 390, SPEED, "pages sent (left axis)");
	draw_legend(f, DRAW_LEFT + 260, 390, DIRTY, "pages written by the program (right axis)");
	draw_frame(f, &middle, all);
	round_line(f, &middle, &middle.left, report, all, "mib_s");
	round_line(f, &middle, &middle.right, report, all, "dirty_mib_s");
	fprintf(f, "<text x=\"%d\" y=\"572\" text-anchor=\"middle\">seconds since the beginning</text>\n",
		(DRAW_LEFT + DRAW_RIGHT) / 2);
	if (done)
		downtime(f, 620, done);
	fputs("</svg>\n", f);
	return !ferror(f);
}

static void row(FILE *f, const json_t *r)
{
	char bytes[32], time[32], left[32];

	fprintf(f, "<tr><td>%lld<td>%lld<td>%s<td>%s<td>%.0f<td>%.1f<td>%s\n", (long long)msg_int(r, "n", 0),
		(long long)msg_int(r, "pages", 0), display_bytes(msg_num(r, "bytes", 0), bytes),
		display_ms(msg_num(r, "ms", 0), time), msg_num(r, "mib_s", 0), msg_num(r, "dirty_mib_s", 0),
		display_ms(msg_num(r, "left_ms", 0), left));
}

bool report_html(FILE *f, const json_t *report)
{
	const json_t *events = json_object_get(report, "events"), *r;

	fputs("<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>", f);
	draw_text(f, msg_str(report, "program", "?"));
	fputs("</title>\n<style>body{font-family:sans-serif;margin:2em}td,th{padding:.2em "
	      "1em;text-align:right}"
	      "table{border-collapse:collapse}tr:nth-child(even){background:#f0f4f8}</style>\n",
	      f);
	report_svg(f, report);
	fputs("<table><tr><th>round<th>pages<th>sent<th>time<th>MiB/s<th>written, MiB/s<th>left\n", f);
	for (size_t i = 0; (r = round_at(report, i)); i++)
		row(f, r);
	fputs("</table>\n<ul>\n", f);
	for (size_t i = 0; i < json_array_size(events); i++) {
		const json_t *ev = json_array_get(events, i);

		if (strcmp(msg_str(ev, "event", ""), "log"))
			continue;
		fputs("<li>", f);
		draw_text(f, msg_str(ev, "text", ""));
		fputc('\n', f);
	}
	fputs("</ul></html>\n", f);
	return !ferror(f);
}
