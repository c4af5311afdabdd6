/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/completion.h"

#include <string.h>

#include "cli/table.h"
#include "cli/verbs.h"
#include "service/manual.h"

/* What stands for an operand or the argument of an option. */
enum kind { NOTHING, DIRECTORY, FILES, PROCESS, HOST, OTHER };

static enum kind kind_of(const char *arg)
{
	if (!arg || !*arg)
		return NOTHING;
	if (!strcmp(arg, "DIR"))
		return DIRECTORY;
	if (!strcmp(arg, "FILE"))
		return FILES;
	if (!strcmp(arg, "PID"))
		return PROCESS;
	return !strncmp(arg, "HOST", 4) ? HOST : OTHER;
}

/* Shown in the usage of this verb, too. */
static bool belongs(const struct opt *o, const struct verb *v)
{
	return o->help && !(o->flags & OPT_UNSUPPORTED) && (!o->verbs || (o->verbs & v->bit));
}

static bool takes_argument(const struct opt *o)
{
	return o->type != OPT_FLAG && o->type != OPT_MODE && o->type != OPT_LEVEL;
}

/* "init|show|trust HOST|..." is a list of words, each with its own operands. */
static void print_words(const char *operands, FILE *f)
{
	bool word = true;

	for (const char *p = operands; *p; p++) {
		if (*p == '|') {
			fputc(' ', f);
			word = true;
		} else if (*p == ' ') {
			word = false;
		} else if (word) {
			fputc(*p, f);
		}
	}
}

/* --- bash ------------------------------------------------------------------------------------------ */

static const char *bash_action(enum kind k)
{
	switch (k) {
	case DIRECTORY:
		return "compopt -o dirnames; COMPREPLY=()";
	case FILES:
		return "compopt -o default; COMPREPLY=()";
	case PROCESS:
		return "COMPREPLY=($(compgen -W \"$(cd /proc && echo [0-9]*)\" -- \"$cur\"))";
	case HOST:
		return "COMPREPLY=($(compgen -A hostname -- \"$cur\"))";
	default:
		return "COMPREPLY=()";
	}
}

static void bash_arguments(FILE *f)
{
	fputs("\tcase $prev in\n", f);
	for (size_t i = 0; i < cli_table.n; i++) {
		const struct opt *o = &cli_table.opts[i];

		if (!o->help || o->flags & OPT_UNSUPPORTED || !takes_argument(o))
			continue;
		fprintf(f, "\t--%s", o->name);
		if (o->letter)
			fprintf(f, " | -%c", o->letter);
		fprintf(f, ") %s; return ;;\n", bash_action(kind_of(o->arg)));
	}
	fputs("\tesac\n", f);
}

static void bash(FILE *f)
{
	fputs("# bash completion for ferry, made from its tables of verbs and options\n"
	      "_ferry()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb= word\n"
	      "\tlocal verbs='",
	      f);
	for (const struct verb *v = verbs; v->name; v++)
		fprintf(f, "%s%s", v == verbs ? "" : " ", v->name);
	fputs("'\n"
	      "\tfor word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
	      "\t\tcase \" $verbs \" in *\" $word \"*) verb=$word; break ;; esac\n"
	      "\tdone\n"
	      "\tif [ -z \"$verb\" ]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W \"$verbs --help --version\" -- \"$cur\"))\n"
	      "\t\treturn\n"
	      "\tfi\n",
	      f);
	bash_arguments(f);
	fputs("\tcase $verb in\n", f);
	for (const struct verb *v = verbs; v->name; v++) {
		fprintf(f, "\t%s)\n\t\tcase $cur in\n\t\t-*) COMPREPLY=($(compgen -W '", v->name);
		for (size_t i = 0; i < cli_table.n; i++)
			if (belongs(&cli_table.opts[i], v))
				fprintf(f, "--%s ", cli_table.opts[i].name);
		fputs("' -- \"$cur\")) ;;\n", f);
		if (strchr(v->operands, '|')) {
			fputs("\t\t*) COMPREPLY=($(compgen -W '", f);
			print_words(v->operands, f);
			fputs("' -- \"$cur\")) ;;\n", f);
		} else {
			fprintf(f, "\t\t*) %s ;;\n", bash_action(kind_of(v->operands)));
		}
		fputs("\t\tesac\n\t\t;;\n", f);
	}
	fputs("\tesac\n}\ncomplete -F _ferry ferry\n", f);
}

/* --- zsh ------------------------------------------------------------------------------------------- */

static const char *zsh_action(enum kind k)
{
	switch (k) {
	case DIRECTORY:
		return "_files -/";
	case FILES:
		return "_files";
	case PROCESS:
		return "_pids";
	case HOST:
		return "_hosts";
	default:
		return " ";
	}
}

static void zsh_option(const struct opt *o, FILE *f)
{
	fprintf(f, " \\\n\t\t\t'%s--%s%s[", o->type == OPT_LIST ? "*" : "", o->name,
		takes_argument(o) ? "=" : "");
	completion_zsh_text(o->help, f);
	fputc(']', f);
	if (takes_argument(o)) {
		fputc(':', f);
		completion_zsh_text(o->arg ? o->arg : "value", f);
		fprintf(f, ":%s", zsh_action(kind_of(o->arg)));
	}
	fputc('\'', f);
}

static void zsh(FILE *f)
{
	fputs("#compdef ferry\n# made from the tables of verbs and options of ferry\n\n"
	      "local context state state_descr line\ntypeset -A opt_args\n"
	      "_arguments -C '(- *)--help[print help]' '(- *)--version[print the version]' '1:verb:->verb' "
	      "'*::argument:->argument'\n"
	      "case $state in\nverb)\n\tlocal -a verbs=(\n",
	      f);
	for (const struct verb *v = verbs; v->name; v++) {
		fprintf(f, "\t\t'%s:", v->name);
		completion_zsh_text(v->help, f);
		fputs("'\n", f);
	}
	fputs("\t)\n\t_describe verb verbs\n\t;;\nargument)\n\tcase $line[1] in\n", f);
	for (const struct verb *v = verbs; v->name; v++) {
		fprintf(f, "\t%s)\n\t\t_arguments", v->name);
		for (size_t i = 0; i < cli_table.n; i++)
			if (belongs(&cli_table.opts[i], v))
				zsh_option(&cli_table.opts[i], f);
		if (strchr(v->operands, '|')) {
			fputs(" \\\n\t\t\t'1:word:(", f);
			print_words(v->operands, f);
			fputs(")'", f);
		} else if (*v->operands) {
			fputs(" \\\n\t\t\t'1:", f);
			completion_zsh_text(v->operands, f);
			fprintf(f, ":%s'", zsh_action(kind_of(v->operands)));
		}
		fputs("\n\t\t;;\n", f);
	}
	fputs("\tesac\n\t;;\nesac\n", f);
}

bool completion_print(const char *shell, FILE *f)
{
	if (!strcmp(shell, "bash"))
		bash(f);
	else if (!strcmp(shell, "zsh"))
		zsh(f);
	else
		return false;
	return true;
}
