/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/manual_verb.h"

#include <ctype.h>
#include <string.h>

#include "base/util.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "service/manual.h"

bool manual_verb(const char *name, FILE *f)
{
	const struct verb *v = verb_find(name);
	cleanup_free char *page = v ? xasprintf("ferry-%s", v->name) : NULL;

	if (!v)
		return false;
	manual_head(page, 1, v->help, f);
	fputs(".SH SYNOPSIS\n.B ferry ", f);
	manual_text(v->name, f);
	fputs("\n[\\fIOPTION\\fR]...", f);
	if (*v->operands) {
		fputs(" \\fI", f);
		manual_text(v->operands, f);
		fputs("\\fR", f);
	}
	/* What ferry(1) says of it comes here: docs/make-manual. */
	fprintf(f, "\n.SH DESCRIPTION\n%c", toupper((unsigned char)v->help[0]));
	manual_text(v->help + 1, f);
	fputs(".\n.SH OPTIONS\n", f);
	manual_options(&cli_table, v->bit, false, f);
	fputs(".PP\nSome options that scripts written for other programs give are accepted without being "
	      "listed here.\n"
	      ".SH \"EXIT STATUS\"\n0: done. Anything else: it was not; the last line of the standard error "
	      "output starts "
	      "with\n.B Error\nand says why.\n"
	      ".SH FILES\n.TP\n.I /etc/ferry/default.conf\n.TQ\n.I ~/.ferry/default.conf\n"
	      "Options, one a line, without dashes; those of other verbs are skipped.\n"
	      ".SH \"SEE ALSO\"\n.BR ferry (1),\n.BR ferryd (8)\n",
	      f);
	return true;
}
