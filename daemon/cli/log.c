/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>

#include "base/util.h"

void log_init(struct log *l)
{
	*l = (struct log){.level = 2, .start = now_ns()};
}

int log_open(struct log *l, const char *dir, const char *name, struct error *e)
{
	cleanup_free char *path = *name == '/' ? xstrdup(name) : xasprintf("%s/%s", dir, name);
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_set(e, errno, "cannot write the log file %s", path);
	l->f = fdopen(TAKE_FD(fd), "a");
	if (l->f)
		setvbuf(l->f, NULL, _IOLBF, 0);
	return 0;
}

static void stamp(struct log *l, FILE *f)
{
	uint64_t us = (now_ns() - l->start) / 1000;

	fprintf(f, "(%02llu.%06llu) ", (unsigned long long)(us / 1000000),
		(unsigned long long)(us % 1000000));
}

void log_line(struct log *l, int level, const char *fmt, ...)
{
	static const char *const names[] = {"", "Error: ", "Warning: "};
	FILE *f = l->f ? l->f : stderr;
	va_list ap;

	if (level > l->level)
		return;
	if (l->f || l->level > 2)
		stamp(l, f);
	if (level > 0 && level < 3)
		fputs(names[level], f);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fputc('\n', f);
}

void log_error(struct log *l, const struct error *e)
{
	if (l->f) {
		stamp(l, l->f);
		fprintf(l->f, "Error (%s): %s\n", e->where, e->text);
		fflush(l->f);
	}
	fprintf(stderr, "Error: %s\n", e->text);
}

void log_close(struct log *l)
{
	if (l->f)
		fclose(l->f);
	l->f = NULL;
}
