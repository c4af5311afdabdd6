/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two panels over the same time: above, bars of what was written in each interval (left axis) and the line of
 * the working set (right axis); below, the downtime (left) and the rounds (right) that a migration would have
 * needed at that moment. Plain shapes and text, so that every viewer shows the same.
 */
#include "cli/svg.h"

#include <math.h>

#include "base/util.h"

#define WIDTH   960
#define HEIGHT  640
#define LEFT    76
#define RIGHT   884
#define COLUMNS (RIGHT - LEFT) /* more than one sample per column: the highest is drawn */
#define TICKS   6

#define BARS  "#3d72a8"
#define FILL  "#a9c6e3" /* of the bars, so that lines stand out on them */
#define SET   "#b5542a"
#define DOWN  "#7a3f9d"
#define ROUND "#3f8f4f"

struct axis {
	double max, step;
	const char *label, *colour;
};

struct panel {
	int top, bottom;
	struct axis left, right;
};

double svg_step(double max, int most)
{
	double step = pow(10, floor(log10(max / most)));

	for (int i = 0; i < 4 && max / step > most; i++)
		step *= i == 1 ? 2.5 : 2; /* 1, 2, 5, 10, 20 */
	return step;
}

static struct axis axis(double max, double least, const char *label, const char *colour)
{
	double step = svg_step(max > least ? max : least, TICKS);
	double top = ceil((max > least ? max : least) / step - 1e-9) * step;

	return (struct axis){top, step, label, colour};
}

static void text(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '>')
			fputs("&gt;", f);
		else if (*s == '&')
			fputs("&amp;", f);
		else
			fputc((unsigned char)*s < ' ' || *s == 127 ? '?' : *s, f);
	}
}

/* 7, 2.5, 0.02: as many digits as the step needs. */
static void number(FILE *f, double v, double step)
{
	int digits = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;

	fprintf(f, "%.*f", digits, v);
}

static double scale_x(double seconds, double all)
{
	return LEFT + seconds / all * (RIGHT - LEFT);
}

static double scale_y(const struct panel *p, const struct axis *a, double v)
{
	return p->bottom - v / a->max * (p->bottom - p->top);
}

static void axis_y(FILE *f, const struct panel *p, const struct axis *a, bool right)
{
	int x = right ? RIGHT : LEFT, middle = (p->top + p->bottom) / 2, at = right ? WIDTH - 14 : 20;

	for (int i = 0; i * a->step <= a->max * 1.000001; i++) {
		double y = scale_y(p, a, i * a->step);

		if (!right)
			fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n", LEFT, y, RIGHT);
		fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">", x + (right ? 6 : -6),
			y + 4, right ? "start" : "end", a->colour);
		number(f, i * a->step, a->step);
		fputs("</text>\n", f);
	}
	fprintf(f,
		"<text transform=\"translate(%d %d) rotate(-90)\" text-anchor=\"middle\" "
		"fill=\"%s\">%s</text>\n",
		at, middle, a->colour, a->label);
}

static void frame(FILE *f, const struct panel *p, double all)
{
	double step = svg_step(all, 10);

	axis_y(f, p, &p->left, false);
	axis_y(f, p, &p->right, true);
	fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#444\"/>\n",
		LEFT, p->top, RIGHT - LEFT, p->bottom - p->top);
	for (int i = 0; i * step <= all * 1.000001; i++) {
		double x = scale_x(i * step, all);

		fprintf(f,
			"<path d=\"M%.1f %dv5\" stroke=\"#444\"/><text x=\"%.1f\" y=\"%d\" "
			"text-anchor=\"middle\">",
			x, p->bottom, x, p->bottom + 18);
		number(f, i * step, step);
		fputs("</text>\n", f);
	}
}

static void bars(FILE *f, const struct panel *p, const struct svg_plot *plot, double all)
{
	double highest = 0, from = 0;

	fprintf(f, "<path fill=\"%s\" d=\"", FILL);
	for (size_t i = 0; i < plot->n; i++) {
		const struct svg_sample *s = &plot->v[i];
		double x = scale_x(s->end, all);

		if (highest == 0 && i)
			from = plot->v[i - 1].end;
		highest = MAX(highest, s->dirty);
		/* The next one lies in the same column: together. */
		if (i + 1 < plot->n && scale_x(plot->v[i + 1].end, all) - scale_x(from, all) < 1)
			continue;
		if (highest > 0)
			fprintf(f, "M%.1f %dV%.1fH%.1fV%dZ", scale_x(from, all), p->bottom,
				scale_y(p, &p->left, highest), x, p->bottom);
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
		double x = scale_x(s->end, all), y = scale_y(p, a, get(s));

		if (!i && (steps || from_zero))
			fprintf(f, "M%.1f %.1f", scale_x(s->end - s->length, all), steps ? y : p->bottom);
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
	double y = scale_y(p, &p->left, ms);

	fprintf(f,
		"<path d=\"M%d %.1fH%d\" stroke=\"%s\" stroke-dasharray=\"6 4\"/>"
		"<text x=\"%d\" y=\"%.1f\" fill=\"%s\" stroke=\"#fff\" stroke-width=\"4\" "
		"paint-order=\"stroke\">wanted: at most %.0f ms</text>\n",
		LEFT, y, RIGHT, DOWN, LEFT + 8, y + 4, DOWN, ms);
}

static void legend(FILE *f, int x, int y, const char *colour, const char *what)
{
	fprintf(f,
		"<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"8\" fill=\"%s\"/><text x=\"%d\" "
		"y=\"%d\">%s</text>\n",
		x, y - 8, colour, x + 20, y, what);
}

static void head(FILE *f, const struct svg_plot *plot)
{
	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
		"font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<title>",
		WIDTH, HEIGHT, WIDTH, HEIGHT);
	text(f, plot->title);
	fprintf(f,
		"</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"28\" "
		"font-size=\"18\" "
		"font-weight=\"bold\">",
		WIDTH, HEIGHT, LEFT);
	text(f, plot->title);
	fprintf(f, "</text>\n<text x=\"%d\" y=\"47\" fill=\"#555\">", LEFT);
	text(f, plot->note);
	fputs("</text>\n", f);
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
	struct panel above = {86, 350, axis(dirty, 0.01, "MiB written per interval", BARS),
			      axis(set, 0.01, "working set, MiB", SET)};
	struct panel below = {432, 582, axis(down, 1, "downtime, ms", DOWN), axis(round, 4, "rounds", ROUND)};

	below.right.step = MAX(below.right.step, 1);
	head(f, plot);
	legend(f, LEFT, 74, FILL, "written in the interval (left axis)");
	legend(f, LEFT + 260, 74, SET,
	       "working set: written since the beginning, each page once (right axis)");
	frame(f, &above, all);
	bars(f, &above, plot, all);
	line(f, &above, &above.right, plot, all, working_set, false);
	legend(f, LEFT, 420, DOWN, "predicted downtime (left axis)");
	legend(f, LEFT + 260, 420, ROUND, "predicted rounds (right axis)");
	frame(f, &below, all);
	line(f, &below, &below.left, plot, all, downtime, false);
	line(f, &below, &below.right, plot, all, rounds, true);
	if (plot->budget_ms > 0)
		budget(f, &below, plot->budget_ms);
	fprintf(f,
		"<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">seconds since the beginning</text>\n</svg>\n",
		(LEFT + RIGHT) / 2, HEIGHT - 18);
	return !ferror(f);
}
