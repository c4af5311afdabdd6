/* SPDX-License-Identifier: Apache-2.0 */
#include "service/manual.h"

#include <ctype.h>
#include <string.h>

void manual_text(const char *s, FILE *f)
{
	for (const char *p = s; *p; p++) {
		if (*p == '\\')
			fputs("\\e", f);
		else if (*p == '-')
			fputs("\\-", f);
		else if (p == s && (*p == '.' || *p == '\''))
			fprintf(f, "\\&%c", *p);
		else
			fputc(*p, f);
	}
}

void manual_head(const char *name, int section, const char *about, FILE *f)
{
	fputs(".\\\" SPDX-License-Identifier: Apache-2.0\n.\\\" Made from the table of options: do not "
	      "edit.\n.TH ",
	      f);
	for (const char *p = name; *p; p++)
		*p == '-' ? fputs("\\-", f) : fputc(toupper((unsigned char)*p), f);
	fprintf(f, " %d \"2026-11-22\" \"ferry %s\" \"%s\"\n.SH NAME\n", section, FERRY_VERSION,
		section == 1   ? "User Commands"
		: section == 5 ? "File Formats"
			       : "System Administration");
	manual_text(name, f);
	fputs(" \\- ", f);
	manual_text(about, f);
	fputc('\n', f);
}

static bool may_be_left_out(enum opt_type type)
{
	return type == OPT_MODE || type == OPT_LEVEL;
}

static void option_head(const struct opt *o, bool file, FILE *f)
{
	fputs(".TP\n", f);
	if (o->letter && !file)
		fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
	fputs("\\fB", f);
	fputs(file ? "" : "\\-\\-", f);
	manual_text(o->name, f);
	fputs("\\fR", f);
	if (o->type != OPT_FLAG) {
		fputs(may_be_left_out(o->type) && !file ? "[=\\fI" : " \\fI", f);
		manual_text(o->arg ? o->arg : "VALUE", f);
		fputs(may_be_left_out(o->type) && !file ? "\\fR]" : "\\fR", f);
	}
	fputc('\n', f);
}

/* Only where it says more than the type does. */
static void option_range(const struct opt *o, FILE *f)
{
	if ((o->type == OPT_INT || o->type == OPT_LEVEL) && o->max > o->min)
		fprintf(f, " From %lld to %lld.", (long long)o->min, (long long)o->max);
	if (o->type == OPT_SIZE)
		fputs(" K, M, G or T may stand behind the number.", f);
	if (o->type == OPT_TIME)
		fputs(" ms, s, m or h may stand behind the number; without it is seconds.", f);
	if (o->type == OPT_LIST)
		fputs(" May be given more than once.", f);
}

void manual_options(const struct opt_table *t, uint32_t verb, bool file, FILE *f)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct opt *o = &t->opts[i];

		if ((o->verbs && !(o->verbs & verb)) || !o->help || o->flags & OPT_UNSUPPORTED ||
		    (file && o->flags & OPT_COMMAND))
			continue;
		option_head(o, file, f);
		char first[2] = {(char)toupper((unsigned char)o->help[0]), 0};

		manual_text(first, f);
		manual_text(o->help + 1, f);
		fputc('.', f);
		option_range(o, f);
		if (o->def) {
			fputs(" Default: ", f);
			manual_text(o->def, f);
			if (o->unit)
				fprintf(f, " %s", o->unit);
			fputc('.', f);
		} else if (o->unit) {
			fputs(" In ", f);
			manual_text(o->unit, f);
			fputc('.', f);
		}
		fputc('\n', f);
	}
}

/* --- completion ------------------------------------------------------------------------------------- */

static bool shown(const struct opt *o)
{
	return o->help && !(o->flags & OPT_UNSUPPORTED);
}

static bool takes_argument(const struct opt *o)
{
	return o->type != OPT_FLAG && !may_be_left_out(o->type);
}

static void bash(const char *program, const struct opt_table *t, FILE *f)
{
	fprintf(f,
		"# bash completion for %s, made from its table of options\n_%s()\n{\n"
		"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n\tcase $prev in\n",
		program, program);
	for (size_t i = 0; i < t->n; i++) {
		const struct opt *o = &t->opts[i];
		const char *arg = o->arg ? o->arg : "";

		if (!shown(o) || !takes_argument(o))
			continue;
		fprintf(f, "\t--%s", o->name);
		if (o->letter)
			fprintf(f, " | -%c", o->letter);
		fprintf(f, ") %s; return ;;\n",
			!strcmp(arg, "DIR")     ? "compopt -o dirnames; COMPREPLY=()"
			: !strcmp(arg, "FILE")  ? "compopt -o default; COMPREPLY=()"
			: !strcmp(arg, "GROUP") ? "COMPREPLY=($(compgen -A group -- \"$cur\"))"
						: "COMPREPLY=()");
	}
	fputs("\tesac\n\tCOMPREPLY=($(compgen -W '", f);
	for (size_t i = 0; i < t->n; i++)
		if (shown(&t->opts[i]))
			fprintf(f, "--%s ", t->opts[i].name);
	fprintf(f, "' -- \"$cur\"))\n}\ncomplete -F _%s %s\n", program, program);
}

void completion_zsh_text(const char *s, FILE *f)
{
	for (; *s; s++) {
		if (*s == '\'') {
			fputs("'\\''", f);
			continue;
		}
		if (strchr("[]:\\", *s))
			fputc('\\', f);
		fputc(*s, f);
	}
}

static void zsh(const char *program, const struct opt_table *t, FILE *f)
{
	fprintf(f, "#compdef %s\n# made from its table of options\n\n_arguments", program);
	for (size_t i = 0; i < t->n; i++) {
		const struct opt *o = &t->opts[i];
		const char *arg = o->arg ? o->arg : "value";

		if (!shown(o))
			continue;
		fprintf(f, " \\\n\t'%s--%s%s[", o->type == OPT_LIST ? "*" : "", o->name,
			takes_argument(o) ? "=" : "");
		completion_zsh_text(o->help, f);
		fputc(']', f);
		if (takes_argument(o)) {
			fputc(':', f);
			completion_zsh_text(arg, f);
			fprintf(f, ":%s",
				!strcmp(arg, "DIR")     ? "_files -/"
				: !strcmp(arg, "FILE")  ? "_files"
				: !strcmp(arg, "GROUP") ? "_groups"
							: " ");
		}
		fputc('\'', f);
	}
	fputc('\n', f);
}

bool completion_of(const char *program, const struct opt_table *t, const char *shell, FILE *f)
{
	if (!strcmp(shell, "bash"))
		bash(program, t, f);
	else if (!strcmp(shell, "zsh"))
		zsh(program, t, f);
	else
		return false;
	return true;
}
