/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "service/errands.h"

/* No option that names a file of this machine, changes whom ferry trusts, or touches what belongs to all. */
static const struct {
	const char *verb, *options[24];
} allowed[] = {
	{"migrate",
	 {"tree", "to", "json", "verbosity", "downtime", "max-downtime", "max-rounds", "time-limit",
	  "max-bandwidth", "on-stall", "post-copy", "streams", "compress", "timeout", "tcp-close", "dry-run",
	  "duration"}},
	{"dump",
	 {"tree", "json", "verbosity", "leave-running", "leave-stopped", "downtime", "max-downtime",
	  "max-rounds", "max-bandwidth", "on-stall", "timeout", "tcp-close"}},
	{"status", {"json", "watch"}},
	{"cancel", {"tree"}},
};

static int check_option(size_t verb, const char *arg, struct error *e)
{
	size_t n = strcspn(arg + 2, "=");

	for (size_t i = 0; i < ARRAY_SIZE(allowed[verb].options) && allowed[verb].options[i]; i++)
		if (strlen(allowed[verb].options[i]) == n && !strncmp(allowed[verb].options[i], arg + 2, n))
			return 0;
	return error_say(e, EPERM, "%.*s is not an option of %s for users (see docs/trust.md)", (int)n + 2,
			 arg, allowed[verb].verb);
}

static int check(const json_t *list, struct error *e)
{
	const char *name = json_string_value(json_array_get(list, 0));
	size_t verb = 0, n = json_array_size(list);

	while (verb < ARRAY_SIZE(allowed) && (!name || strcmp(allowed[verb].verb, name)))
		verb++;
	if (verb == ARRAY_SIZE(allowed) || n > ERRAND_ARGS)
		return error_say(e, EPERM,
				 "ferryd does not do that for users: only migrate, dump, status and cancel");
	for (size_t i = 1; i < n; i++) {
		const char *arg = json_string_value(json_array_get(list, i));

		if (arg && !strncmp(arg, "--", 2) && arg[2]) {
			if (check_option(verb, arg, e) < 0)
				return -e->code;
		} else if (!arg || !*arg || *arg == '-' || strspn(arg, "0123456789abcdef-") != strlen(arg)) {
			return error_say(e, EINVAL, "\"%s\" is neither a process nor a migration",
					 arg ? arg : "?");
		}
	}
	return 0;
}

char **errand_args(const json_t *list, uid_t uid, const char *keys, const char *libdir, struct error *e)
{
	if (check(list, e) < 0)
		return NULL;
	char **args = xcalloc(json_array_size(list) + 4, sizeof(*args));
	size_t n = 0;

	for (; n < json_array_size(list); n++)
		args[n] = xstrdup(json_string_value(json_array_get(list, n)));
	args[n++] = xasprintf("--owner=%u", uid);
	if (!strcmp(args[0], "migrate"))
		args[n++] = xasprintf("--keys=%s", keys);
	if (libdir)
		args[n++] = xasprintf("--libdir=%s", libdir);
	return args;
}

void errand_args_free(char **args)
{
	for (size_t i = 0; args && args[i]; i++)
		free(args[i]);
	free(args);
}
