/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/draw.h"

#include <math.h>
#include <stdbool.h>

#define TICKS 6

double draw_step(double max, int most)
{
	double step = pow(10, floor(log10(max / most)));

	for (int i = 0; i < 4 && max / step > most; i++)
		step *= i == 1 ? 2.5 : 2; /* 1, 2, 5, 10, 20 */
	return step;
}

struct axis draw_axis(double max, double least, const char *label, const char *colour)
{
	double step = draw_step(max > least ? max : least, TICKS);
	double top = ceil((max > least ? max : least) / step - 1e-9) * step;

	return (struct axis){top, step, label, colour};
}

void draw_text(FILE *f, const char *s)
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

double draw_x(double seconds, double all)
{
	return DRAW_LEFT + seconds / all * (DRAW_RIGHT - DRAW_LEFT);
}

double draw_y(const struct panel *p, const struct axis *a, double v)
{
	return p->bottom - v / a->max * (p->bottom - p->top);
}

static void axis_y(FILE *f, const struct panel *p, const struct axis *a, bool right)
{
	int x = right ? DRAW_RIGHT : DRAW_LEFT, middle = (p->top + p->bottom) / 2,
	    at = right ? DRAW_WIDTH - 14 : 20;

	for (int i = 0; i * a->step <= a->max * 1.000001; i++) {
		double y = draw_y(p, a, i * a->step);

		if (!right)
			fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n", DRAW_LEFT, y, DRAW_RIGHT);
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

void draw_frame(FILE *f, const struct panel *p, double all)
{
	double step = draw_step(all, 10);

	axis_y(f, p, &p->left, false);
	axis_y(f, p, &p->right, true);
	fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#444\"/>\n",
		DRAW_LEFT, p->top, DRAW_RIGHT - DRAW_LEFT, p->bottom - p->top);
	for (int i = 0; i * step <= all * 1.000001; i++) {
		double x = draw_x(i * step, all);

		fprintf(f,
			"<path d=\"M%.1f %dv5\" stroke=\"#444\"/><text x=\"%.1f\" y=\"%d\" "
			"text-anchor=\"middle\">",
			x, p->bottom, x, p->bottom + 18);
		number(f, i * step, step);
		fputs("</text>\n", f);
	}
}

void draw_legend(FILE *f, int x, int y, const char *colour, const char *what)
{
	fprintf(f,
		"<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"8\" fill=\"%s\"/><text x=\"%d\" "
		"y=\"%d\">%s</text>\n",
		x, y - 8, colour, x + 20, y, what);
}

void draw_head(FILE *f, int height, const char *title, const char *note)
{
	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
		"font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<title>",
		DRAW_WIDTH, height, DRAW_WIDTH, height);
	draw_text(f, title);
	fprintf(f,
		"</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"28\" "
		"font-size=\"18\" "
		"font-weight=\"bold\">",
		DRAW_WIDTH, height, DRAW_LEFT);
	draw_text(f, title);
	fprintf(f, "</text>\n<text x=\"%d\" y=\"47\" fill=\"#555\">", DRAW_LEFT);
	draw_text(f, note);
	fputs("</text>\n", f);
}
