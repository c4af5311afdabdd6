/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Socket options of a test: set to something else than the default, noted, and compared afterwards. */
#include <sys/socket.h>

#include "zdtm.h"

struct sockopt {
	int level, name;
	int value; /* what is set */
	const char *text;
	int seen; /* what is read after that */
	bool there;
};
#define OPT(level, name, value)                 \
	{                                       \
		level, name, value, #name, 0, 0 \
	}

static inline int sockopt_get(int fd, const struct sockopt *o, bool *ret_there)
{
	int v = 0;
	socklen_t n = sizeof(v);

	*ret_there = getsockopt(fd, o->level, o->name, &v, &n) == 0;
	return v;
}

/* Options that this kernel does not have are left out; at least @least must be there. */
static inline void sockopts_set(int fd, struct sockopt *o, size_t n, size_t least)
{
	size_t there = 0;

	for (size_t i = 0; i < n; i++) {
		bool has;
		int before = sockopt_get(fd, &o[i], &has);

		if (!has || setsockopt(fd, o[i].level, o[i].name, &o[i].value, sizeof(int)) < 0)
			continue;
		o[i].seen = sockopt_get(fd, &o[i], &o[i].there);
		CHECK(o[i].seen != before, "%s is %d before it is set", o[i].text, before);
		there++;
	}
	CHECK(there >= least, "only %zu options are here", there);
}

static inline void sockopts_check(int fd, const struct sockopt *o, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool has;
		int v = o[i].there ? sockopt_get(fd, &o[i], &has) : o[i].seen;

		errno = 0;
		CHECK(v == o[i].seen, "%s is %d, not %d", o[i].text, v, o[i].seen);
	}
}

#define SOCKOPTS_SET(fd, all, least) sockopts_set(fd, all, sizeof(all) / sizeof((all)[0]), least)
#define SOCKOPTS_CHECK(fd, all)      sockopts_check(fd, all, sizeof(all) / sizeof((all)[0]))
