/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the plots of ferry are drawn of: panels over a time in seconds, with an axis on either side. Plain
 * shapes and text, so that every viewer shows the same. */
#include <stdio.h>

#define DRAW_WIDTH 960
#define DRAW_LEFT  76
#define DRAW_RIGHT 884

struct axis {
	double max, step;
	const char *label, *colour;
};

struct panel {
	int top, bottom;
	struct axis left, right;
};

/* A round number (1, 2 or 5 times a power of ten) so that at most @most steps cover @max. */
double draw_step(double max, int most);
/* From 0 to @max, or to @least if that is more. */
struct axis draw_axis(double max, double least, const char *label, const char *colour);
/* Any text: it is escaped. */
void draw_text(FILE *f, const char *s);
double draw_x(double seconds, double all);
double draw_y(const struct panel *p, const struct axis *a, double v);
/* Both axes, and the time (0 to @all seconds) below. */
void draw_frame(FILE *f, const struct panel *p, double all);
void draw_legend(FILE *f, int x, int y, const char *colour, const char *what);
/* The beginning of the file. @title, @note: any text. */
void draw_head(FILE *f, int height, const char *title, const char *note);
