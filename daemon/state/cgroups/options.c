/* SPDX-License-Identifier: Apache-2.0 */
/* --manage-cgroups and --cgroup-root. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"

static const char *const modes[] = {
	[CGROUPS_IGNORE] = "ignore", [CGROUPS_NONE] = "none", [CGROUPS_PROPS] = "props",
	[CGROUPS_SOFT] = "soft",     [CGROUPS_FULL] = "full", [CGROUPS_STRICT] = "strict",
};

int cgroup_mode_parse(const char *name, enum cgroup_mode *ret, struct error *e)
{
	if (!*name)
		name = modes[CGROUPS_SOFT];
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(name, modes[i])) {
			*ret = (enum cgroup_mode)i;
			return 0;
		}
	return error_say(e, EINVAL,
			 "--manage-cgroups takes none, props, soft, full, strict or ignore, not \"%s\"",
			 name);
}

const char *cgroup_mode_name(enum cgroup_mode mode)
{
	return modes[mode];
}

bool cgroup_path_ok(const char *path)
{
	if (*path != '/' || strlen(path) > 2048 || strchr(path, '\n'))
		return false;
	if (!path[1])
		return true;
	for (const char *p = path; *p;) {
		size_t n = strcspn(++p, "/");

		if (!n || (n == 1 && *p == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n;
	}
	return true;
}

int cgroup_root_add(const char *text, char **list, struct error *e)
{
	const char *path = *text == '/' ? text : strstr(text, ":/");

	if (path && path != text)
		path++;
	if (!path || !cgroup_path_ok(path) || strchr(text, '\n'))
		return error_say(e, EINVAL,
				 "--cgroup-root takes /PATH or CONTROLLERS:/PATH, without \"..\", not \"%s\"",
				 text);
	char *longer = *list ? xasprintf("%s\n%s", *list, text) : xstrdup(text);

	free(*list);
	*list = longer;
	return 0;
}

/* Do two lists of controllers ("cpu,cpuacct") have one in common? */
static bool meets(const char *a, size_t n, const char *b)
{
	while (n) {
		size_t length = strcspn(a, ",:");

		for (const char *p = b; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
			if (!strncmp(a, p, length) && (!p[length] || p[length] == ','))
				return true;
		length = MIN(length + 1, n);
		a += length;
		n -= length;
	}
	return false;
}

/* The one that names this hierarchy, or else one that names none. */
char *cgroup_root_of(const char *list, const char *controllers)
{
	cleanup_free char *lines = list ? xstrdup(list) : NULL;
	char *save = NULL, *any = NULL;

	for (char *line = lines ? strtok_r(lines, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *path = *line == '/' ? line : strstr(line, ":/") + 1;

		if (path == line)
			any = line;
		else if (*controllers && meets(line, (size_t)(path - 1 - line), controllers))
			return xstrdup(path);
	}
	return any ? xstrdup(any) : NULL;
}
