/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One table of options feeds the command line, the configuration file and the usage text of a program.  A row
 * names the option, its type, default, range and unit, the verbs it belongs to, and where its value goes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum opt_type {
	OPT_FLAG,   /* bool */
	OPT_INT,    /* int64_t, min..max */
	OPT_SIZE,   /* uint64_t bytes; K, M, G, T behind the number */
	OPT_TIME,   /* int64_t milliseconds, min..max; ms, s, m, h behind the number, without: seconds */
	OPT_STRING, /* char * */
	OPT_LIST,   /* struct opt_list, one more each time */
	OPT_MODE,   /* char *, the argument may be missing: "" */
	OPT_LEVEL,  /* int64_t: -v, -vvv, -v4 */
};

#define OPT_COMPAT      (1u << 0) /* accepted with every verb: scripts give it without need */
#define OPT_ACCEPTED    (1u << 1) /* accepted and without effect on the result; no storage */
#define OPT_UNSUPPORTED (1u << 2) /* known, changes the result, does not exist yet: an error; no storage */
#define OPT_COMMAND     (1u << 3) /* not in configuration files */

struct opt {
	const char *name;
	char letter; /* 0: none */
	enum opt_type type;
	uint32_t flags;
	uint32_t verbs;   /* bit set; 0: all */
	size_t offset;    /* in the struct of values */
	const char *arg;  /* name of the argument in the usage text */
	const char *def;  /* default as it would be typed; NULL: zero */
	int64_t min, max; /* OPT_INT, OPT_TIME, OPT_LEVEL */
	const char *unit;
	const char *help; /* NULL: not in the usage text; OPT_UNSUPPORTED: why */
};

struct opt_list {
	char **v;
	size_t n;
};

struct opt_table {
	const struct opt *opts;
	size_t n;
	size_t size; /* of the struct of values */
};

/* Zero @values and fill in the defaults. */
void options_init(const struct opt_table *t, void *values);
void options_deinit(const struct opt_table *t, void *values);
/* argv[0] is skipped. *ret_operand: index of the first operand (argv is permuted: options first). @verb: bit
 * of the verb, for refusals. */
int options_parse_argv(const struct opt_table *t, uint32_t verb, const char *verb_name, int argc, char **argv,
		       void *values, int *ret_operand, struct error *e);
/* Each option of a call that options_parse_argv has accepted, with its argument (NULL: none). */
void options_each(const struct opt_table *t, int argc, char **argv,
		  void (*each)(void *ctx, const struct opt *o, const char *value), void *ctx);
/* One option a line, without dashes: "name", "name value" or "name=value"; # begins a comment, quotes keep
 * blanks. Options of other verbs are skipped. @missing_ok: no file is no error. */
int options_parse_file(const struct opt_table *t, uint32_t verb, const char *path, bool missing_ok,
		       void *values, struct error *e);
/* The same for text in memory (changed by the call); @path for errors. */
int options_parse_text(const struct opt_table *t, uint32_t verb, const char *path, char *text, void *values,
		       struct error *e);
/* The options of a verb, for people. */
void options_usage(const struct opt_table *t, uint32_t verb, FILE *f);
