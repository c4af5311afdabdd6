/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/verbs.h"

#include <string.h>

const struct verb verbs[] = {
	{"migrate", "PID", VERB_MIGRATE, verb_migrate, "move a running process tree to another machine"},
	{"dump", "", VERB_DUMP, verb_dump, "write a process tree into an images directory"},
	{"pre-dump", "", VERB_PREDUMP, verb_predump,
	 "write its memory only, while it runs on; a dump follows"},
	{"restore", "", VERB_RESTORE, verb_restore, "bring a process tree back from an images directory"},
	{"page-server", "", VERB_PAGE_SERVER, verb_page_server,
	 "receive the memory of a dump made elsewhere"},
	{"lazy-pages", "", VERB_LAZY_PAGES, verb_lazy_pages,
	 "fetch the memory of a tree that is restored with --lazy-pages while it runs"},
	{"show", "DIR", VERB_SHOW, verb_show, "print what an images directory holds"},
	{"track", "PID", VERB_TRACK, verb_track,
	 "watch how a process tree writes its memory, and how a migration would go"},
	{"status", "", VERB_STATUS, verb_status, "list the jobs that run now"},
	{"resume", "[UUID]", VERB_RESUME, verb_resume,
	 "bring migrations to an end that were cut off in the middle of the hand-over"},
	{"cancel", "PID|ID", VERB_CANCEL, verb_cancel,
	 "stop the job on a process, or a migration to here; the process runs on where it was"},
	{"report", "[ID]", VERB_REPORT, verb_report, "how a migration went, as text or as a picture"},
	{"keys", "init|show|list|trust HOST|forget NAME", VERB_KEYS, verb_keys,
	 "the host key, and the peers this host trusts"},
	{"check", "", VERB_CHECK, verb_check, "tell what works on this machine, and why not"},
	{"dedup", "", VERB_DEDUP, verb_dedup, "known to scripts; not supported"},
	{NULL, NULL, 0, NULL, NULL},
};

const struct verb *verb_find(const char *name)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (!strcmp(v->name, name))
			return v;
	return NULL;
}

void verbs_usage(FILE *f)
{
	fputs("Usage: ferry VERB [OPTION]...\n\nMove running process trees between machines, or to disk and "
	      "back.\n\n",
	      f);
	for (const struct verb *v = verbs; v->name; v++)
		fprintf(f, "  %-12s %s\n", v->name, v->help);
	fputs("\nferry VERB --help lists the options of a verb; ferry(1) describes them.\n", f);
}
