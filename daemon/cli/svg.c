/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two panels over the same time: above, bars of what was written in each interval (left axis) and the line of
 * the working set (right axis); below, the downtime (left) and the rounds (right) that a migration would have
 * needed at that moment. Plain shapes and text, so that every viewer shows the same.
 */
#include "cli/svg.h"

#include "cli/draw.h"

#include "base/util.h"

#define HEIGHT  640
#define COLUMNS (DRAW_RIGHT - DRAW_LEFT) /* more than one sample per column: the highest is drawn */

#define BARS  "#3d72a8"
#define FILL  "#a9c6e3" /* of the bars, so that lines stand out on them */
#define SET   "#b5542a"
#define DOWN  "#7a3f9d"
#define ROUND "#3f8f4f"

static void bars(FILE *f, const struct panel *p, const struct svg_plot *plot, double all)
{
	double highest = 0, from = 0;

	fprintf(f, "<path fill=\"%s\" d=\"", FILL);
	for (size_t i = 0; i < plot->n; i++) {
		const struct svg_sample *s = &plot->v[i];
		double x = draw_x(s->end, all);

		if (highest == 0 && i)
			from = plot->v[i - 1].end;
		highest = MAX(highest, s->dirty);
		/* The next one lies in the same column: together. */
		if (i + 1 < plot->n && draw_x(plot->v[i + 1].end, all) - draw_x(from, all) < 1)
			continue;
		if (highest > 0)
			fprintf(f, "M%.1f %dV%.1fH%.1fV%dZ", draw_x(from, all), p->bottom,
				draw_y(p, &p->left, highest), x, p->bottom);
		from = s->end;
		highest = 0;
	}
	fputs("\"/>\n", f);
}

typedef double (*value)(const struct svg_sample *s);

static double working_set(const struct svg_sample *s)
{
	return s->working_set;
}

static double downtime(const struct svg_sample *s)
{
	return s->downtime_ms;
}

static double rounds(const struct svg_sample *s)
{
	return s->rounds;
}

/* Through the ends of the intervals, or (@steps) flat over each of them. */
static void line(FILE *f, const struct panel *p, const struct axis *a, const struct svg_plot *plot,
		 double all, value get, bool steps)
{
	double last = -1;
	bool from_zero = get == working_set; /* the others are not known before the first interval */

	fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\" d=\"",
		a->colour);
	for (size_t i = 0; i < plot->n; i++) {
		const struct svg_sample *s = &plot->v[i];
		double x = draw_x(s->end, all), y = draw_y(p, a, get(s));

		if (!i && (steps || from_zero))
			fprintf(f, "M%.1f %.1f", draw_x(s->end - s->length, all), steps ? y : p->bottom);
		if (i + 1 < plot->n && last >= 0 && x - last < 1)
			continue;
		if (steps)
			fprintf(f, "V%.1fH%.1f", y, x);
		else
			fprintf(f, "%c%.1f %.1f", i || from_zero ? 'L' : 'M', x, y);
		last = x;
	}
	fputs("\"/>\n", f);
}

/* Drawn last, with a margin of its own: a line may lie there. */
static void budget(FILE *f, const struct panel *p, double ms)
{
	double y = draw_y(p, &p->left, ms);

	fprintf(f,
		"<path d=\"M%d %.1fH%d\" stroke=\"%s\" stroke-dasharray=\"6 4\"/>"
		"<text x=\"%d\" y=\"%.1f\" fill=\"%s\" stroke=\"#fff\" stroke-width=\"4\" "
		"paint-order=\"stroke\">wanted: at most %.0f ms</text>\n",
		DRAW_LEFT, y, DRAW_RIGHT, DOWN, DRAW_LEFT + 8, y + 4, DOWN, ms);
}

bool svg_write(FILE *f, const struct svg_plot *plot)
{
	double all = plot->n ? plot->v[plot->n - 1].end : 1, dirty = 0, set = 0, down = plot->budget_ms,
	       round = 0;

	for (size_t i = 0; i < plot->n; i++) {
		dirty = MAX(dirty, plot->v[i].dirty);
		set = MAX(set, plot->v[i].working_set);
		down = MAX(down, plot->v[i].downtime_ms);
		round = MAX(round, plot->v[i].rounds);
	}
	all = all > 0 ? all : 1;
	struct panel above = {86, 350, draw_axis(dirty, 0.01, "MiB written per interval", BARS),
			      draw_axis(set, 0.01, "working set, MiB", SET)};
	struct panel below = {432, 582, draw_axis(down, 1, "downtime, ms", DOWN),
			      draw_axis(round, 4, "rounds", ROUND)};

	below.right.step = MAX(below.right.step, 1);
	draw_head(f, HEIGHT, plot->title, plot->note);
	draw_legend(f, DRAW_LEFT, 74, FILL, "written in the interval (left axis)");
	draw_legend(f, DRAW_LEFT + 260, 74, SET,
		    "working set: written since the beginning, each page once (right axis)");
	draw_frame(f, &above, all);
	bars(f, &above, plot, all);
	line(f, &above, &above.right, plot, all, working_set, false);
	draw_legend(f, DRAW_LEFT, 420, DOWN, "predicted downtime (left axis)");
	draw_legend(f, DRAW_LEFT + 260, 420, ROUND, "predicted rounds (right axis)");
	draw_frame(f, &below, all);
	line(f, &below, &below.left, plot, all, downtime, false);
	line(f, &below, &below.right, plot, all, rounds, true);
	if (plot->budget_ms > 0)
		budget(f, &below, plot->budget_ms);
	fprintf(f,
		"<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">seconds since the beginning</text>\n</svg>\n",
		(DRAW_LEFT + DRAW_RIGHT) / 2, HEIGHT - 18);
	return !ferror(f);
}
