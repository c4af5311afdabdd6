/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Descriptors that do not travel: --external names them at the dump, --inherit-fd brings others in their
 * place at the restore.  docs/command-line.md has the forms.
 */
#include <stdbool.h>
#include <stddef.h>

#include "state/files/fd_type.h"

struct inherited {
	int fd;
	char *key; /* an id in the same form, or a path without the first slash */
};

/* "TYPE[ID]" or "TYPE[ID]:NAME" becomes a line of @list (NULL or malloc'ed): "pipe[4711]", "file[1c:2a0f]
 * NAME", "tty[8803:3]". Refuses types that are none of ours, with the reason. */
int external_add(const char *text, char **list, struct error *e);
/* "fd[N]:KEY". The descriptor must be open. */
int inherited_parse(const char *text, struct inherited *ret, struct error *e);
/* The key that --inherit-fd or --external may name a resource by, in the one form that is compared.
 * malloc'ed. */
char *external_key(const char *text);
/* Is this description in the list? Sets f->external to its line. */
int external_find(struct fd_facts *f, const struct state_options *o, struct error *e);
/* Descriptor that the caller has brought for an id, a name or a path; -1: none. */
int inherited_find(const struct state_options *o, const char *key);
/* Does the caller bring this one? */
bool inherited_is(const struct rebuild *r, const Ferry__FileDescription *m);
