/* SPDX-License-Identifier: Apache-2.0 */
#include "service/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "base/util.h"

static bool stored(const struct opt *o)
{
	return !(o->flags & (OPT_ACCEPTED | OPT_UNSUPPORTED));
}

static int parse_int(const struct opt *o, const char *text, int64_t *ret, struct error *e)
{
	char *end;

	errno = 0;
	long long v = strtoll(text, &end, 10);

	if (end == text || *end || errno || v < o->min || v > o->max)
		return error_say(e, EINVAL, "--%s takes a number from %lld to %lld%s%s, not \"%s\"", o->name,
				 (long long)o->min, (long long)o->max, o->unit ? " " : "",
				 o->unit ? o->unit : "", text);
	*ret = v;
	return 0;
}

static int parse_size(const struct opt *o, const char *text, uint64_t *ret, struct error *e)
{
	static const char units[] = "KMGT";
	char *end;

	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;

	if (unit)
		end++;
	if (end == text || !isdigit((unsigned char)*text) || *end || errno || (v << shift) >> shift != v)
		return error_say(e, EINVAL, "--%s takes a size such as 4096, 512K or 2G, not \"%s\"", o->name,
				 text);
	*ret = (uint64_t)v << shift;
	return 0;
}

/* "1", "1.5s", "250ms", "2m" */
static int parse_time(const struct opt *o, const char *text, int64_t *ret, struct error *e)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
	char *end = NULL;
	double v = isdigit((unsigned char)*text) ? strtod(text, &end) : -1;

	for (size_t i = 0; end && i < ARRAY_SIZE(units); i++) {
		double ms = v * units[i].ms;

		if (strcmp(end, units[i].name) || !(ms >= o->min && ms <= o->max))
			continue;
		*ret = (int64_t)ms;
		return 0;
	}
	return error_say(e, EINVAL,
			 "--%s takes a time such as 250ms, 1s or 2m (%lld ms to %lld s), not \"%s\"", o->name,
			 (long long)o->min, (long long)o->max / 1000, text);
}

/* "": one step up; "vv": one more each; "4", "=4", and "erbosity=4" (from "-verbosity=4"): that level. */
static int parse_level(const struct opt *o, const char *text, int64_t *ret, struct error *e)
{
	size_t vs = strspn(text, "v");

	if (!text[vs]) {
		*ret = MIN(*ret + 1 + (int64_t)vs, o->max);
		return 0;
	}
	if (!strncmp(text, "erbosity", 8))
		text += 8;
	if (*text == '=')
		text++;
	return parse_int(o, text, ret, e);
}

static int set_value(const struct opt *o, const char *text, void *values, struct error *e)
{
	char *p = (char *)values + o->offset;

	if (o->flags & OPT_UNSUPPORTED)
		return error_say(e, ENOTSUP, "--%s is not supported%s%s", o->name, o->help ? ": " : " yet",
				 o->help ? o->help : "");
	if (!stored(o))
		return 0;
	switch (o->type) {
	case OPT_FLAG:
		*(bool *)p = true;
		return 0;
	case OPT_INT:
		return parse_int(o, text, (int64_t *)p, e);
	case OPT_SIZE:
		return parse_size(o, text, (uint64_t *)p, e);
	case OPT_TIME:
		return parse_time(o, text, (int64_t *)p, e);
	case OPT_LEVEL:
		return parse_level(o, text ? text : "", (int64_t *)p, e);
	case OPT_STRING:
	case OPT_MODE:
		free(*(char **)p);
		*(char **)p = xstrdup(text ? text : "");
		return 0;
	case OPT_LIST: {
		struct opt_list *l = (struct opt_list *)p;

		l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
		l->v[l->n++] = xstrdup(text);
		return 0;
	}
	}
	return 0;
}

void options_init(const struct opt_table *t, void *values)
{
	struct error e = ERROR_INIT;

	memset(values, 0, t->size);
	for (size_t i = 0; i < t->n; i++)
		if (t->opts[i].def && stored(&t->opts[i]))
			set_value(&t->opts[i], t->opts[i].def, values, &e);
}

void options_deinit(const struct opt_table *t, void *values)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct opt *o = &t->opts[i];
		char *p = (char *)values + o->offset;

		if (!stored(o))
			continue;
		if (o->type == OPT_STRING || o->type == OPT_MODE)
			free(*(char **)p);
		if (o->type == OPT_LIST) {
			struct opt_list *l = (struct opt_list *)p;

			for (size_t k = 0; k < l->n; k++)
				free(l->v[k]);
			free(l->v);
		}
	}
	memset(values, 0, t->size);
}

static bool belongs(const struct opt *o, uint32_t verb)
{
	return !o->verbs || (o->verbs & verb);
}

/* How getopt sees the argument of a type. */
static int argument(enum opt_type type)
{
	if (type == OPT_FLAG)
		return no_argument;
	return type == OPT_MODE || type == OPT_LEVEL ? optional_argument : required_argument;
}

/* getopt's two tables out of ours. *ret_long is malloc'ed; @letters has room for 3 characters per option. */
static void getopt_tables(const struct opt_table *t, struct option **ret_long, char *letters)
{
	struct option *l = xcalloc(t->n + 1, sizeof(*l));

	*letters++ = ':';
	for (size_t i = 0; i < t->n; i++) {
		int arg = argument(t->opts[i].type);

		l[i] = (struct option){t->opts[i].name, arg, NULL, 256 + (int)i};
		if (!t->opts[i].letter)
			continue;
		*letters++ = t->opts[i].letter;
		for (int k = 0; k < arg; k++)
			*letters++ = ':';
	}
	*letters = 0;
	*ret_long = l;
}

static const struct opt *by_code(const struct opt_table *t, int c)
{
	if (c >= 256)
		return &t->opts[c - 256];
	for (size_t i = 0; i < t->n; i++)
		if (t->opts[i].letter == c)
			return &t->opts[i];
	return NULL;
}

static int one_option(const struct opt_table *t, uint32_t verb, const char *verb_name, int c, char **argv,
		      void *values, struct error *e)
{
	if (c == '?' || c == ':') {
		const char *word = argv[optind - 1];
		const char *why = c == ':' ? "needs an argument" : "is not an option";

		if (optopt > 0 && optopt < 256)
			return error_say(e, EINVAL, "-%c %s of ferry", optopt, why);
		return error_say(e, EINVAL, "%s %s of ferry", word, why);
	}
	const struct opt *o = by_code(t, c);

	if (!belongs(o, verb)) {
		if (o->flags & OPT_COMPAT)
			return 0;
		return error_say(e, EINVAL, "--%s is not an option of %s", o->name, verb_name);
	}
	return set_value(o, optarg, values, e);
}

int options_parse_argv(const struct opt_table *t, uint32_t verb, const char *verb_name, int argc, char **argv,
		       void *values, int *ret_operand, struct error *e)
{
	cleanup_free struct option *longs = NULL;
	cleanup_free char *letters = xcalloc(t->n + 2, 3);
	int r = 0, c;

	getopt_tables(t, &longs, letters);
	optind = 0; /* start anew, whoever used getopt before */
	opterr = 0;
	/* To the end even after a mistake: where the log goes is wanted all the same. */
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1)
		if (one_option(t, verb, verb_name, c, argv, values, e) < 0)
			r = -e->code;
	*ret_operand = optind;
	return r;
}

void options_each(const struct opt_table *t, int argc, char **argv,
		  void (*each)(void *ctx, const struct opt *o, const char *value), void *ctx)
{
	cleanup_free struct option *longs = NULL;
	cleanup_free char *letters = xcalloc(t->n + 2, 3);
	int c;

	getopt_tables(t, &longs, letters);
	optind = opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1)
		if (c != '?' && c != ':')
			each(ctx, by_code(t, c), optarg);
}

/* The next line's option name and value ("" for none), both in place. Returns where the next line begins. */
static char *split_line(char *line, char **ret_name, char **ret_value)
{
	char *next = line + strcspn(line, "\n");

	if (*next)
		*next++ = 0;
	line += strspn(line, " \t\r");
	char *p = line + strcspn(line, " \t\r=#");
	char mark = *p;

	*ret_name = line;
	*ret_value = p;
	if (!mark || mark == '#') {
		*p = 0;
		return next;
	}
	*p++ = 0;
	p += strspn(p, " \t\r");
	if (*p == '=' && mark != '=')
		p += 1 + strspn(p + 1, " \t\r");
	if (*p == '"' || *p == '\'') {
		char *end = strchr(p + 1, *p);

		*ret_value = p + 1;
		if (end)
			*end = 0;
		return next;
	}
	*ret_value = p;
	p[strcspn(p, "#")] = 0;
	for (size_t n = strlen(p); n && isspace((unsigned char)p[n - 1]);)
		p[--n] = 0;
	return next;
}

static int config_option(const struct opt_table *t, uint32_t verb, const char *name, const char *value,
			 void *values, struct error *e)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct opt *o = &t->opts[i];

		if (strcmp(o->name, name))
			continue;
		if (o->flags & OPT_COMMAND)
			return error_say(e, EINVAL, "%s cannot be set in a configuration file", name);
		if (o->type == OPT_FLAG && *value)
			return error_say(e, EINVAL, "%s takes no value", name);
		if (argument(o->type) == required_argument && !*value)
			return error_say(e, EINVAL, "%s needs a value", name);
		return belongs(o, verb) ? set_value(o, value, values, e) : 0;
	}
	return error_say(e, EINVAL, "%s is not an option of ferry", name);
}

int options_parse_text(const struct opt_table *t, uint32_t verb, const char *path, char *text, void *values,
		       struct error *e)
{
	unsigned line = 0;

	while (*text) {
		char *name, *value;

		text = split_line(text, &name, &value);
		line++;
		if (!*name)
			continue;
		int r = config_option(t, verb, name, value, values, e);

		if (r < 0) {
			error_prefix(e, "%s, line %u", path, line);
			return r;
		}
	}
	return 0;
}

int options_parse_file(const struct opt_table *t, uint32_t verb, const char *path, bool missing_ok,
		       void *values, struct error *e)
{
	cleanup_free char *text = NULL;
	ssize_t n = read_file(path, &text);

	if (n == -ENOENT && missing_ok)
		return 0;
	if (n < 0)
		return error_set(e, (int)-n, "cannot read the configuration file %s", path);
	return options_parse_text(t, verb, path, text, values, e);
}

void options_usage(const struct opt_table *t, uint32_t verb, FILE *f)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct opt *o = &t->opts[i];

		if (!belongs(o, verb) || !o->help || (o->flags & OPT_UNSUPPORTED))
			continue;
		cleanup_free char *left =
			xasprintf(argument(o->type) == no_argument         ? "%s%c%s--%s"
				  : argument(o->type) == required_argument ? "%s%c%s--%s %s"
									   : "%s%c%s--%s[=%s]",
				  o->letter ? "-" : " ", o->letter ? o->letter : ' ', o->letter ? ", " : "  ",
				  o->name, o->arg ? o->arg : "VALUE");

		fprintf(f, "  %-34s %s", left, o->help);
		if (o->def && o->unit)
			fprintf(f, " (default %s %s)", o->def, o->unit);
		else if (o->def)
			fprintf(f, " (default %s)", o->def);
		else if (o->unit)
			fprintf(f, " (%s)", o->unit);
		fputc('\n', f);
	}
}
