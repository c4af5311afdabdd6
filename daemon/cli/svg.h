/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The plot of ferry track --svg: what was written over time, and what a migration would have needed. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct svg_sample {
	double end, length;        /* seconds; end: since the beginning */
	double dirty, working_set; /* MiB written in the interval, and since the beginning (each page once) */
	double rounds, downtime_ms; /* predicted */
};

struct svg_plot {
	const char *title; /* any text: it is escaped */
	const char *note;  /* one line below: backend, bandwidth... */
	double budget_ms;  /* downtime that is wanted; 0: none */
	const struct svg_sample *v;
	size_t n;
};

/* Write it all; false when @f has an error (ferror). Without samples the axes alone. */
bool svg_write(FILE *f, const struct svg_plot *p);
