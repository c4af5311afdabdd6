/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int fill(struct error *e, const char *where, int code, bool words, const char *fmt, va_list ap)
{
	if (e->code)
		return -(code ? code : EIO);
	const char *base = strstr(where, "daemon/");

	snprintf(e->where, sizeof(e->where), "%s", base ? base + 7 : where);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	if (words && code) {
		size_t n = strlen(e->text);

		snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerror(code));
	}
	e->code = code ? code : EIO;
	return -e->code;
}

int error_set_at(struct error *e, const char *where, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int r = fill(e, where, code, true, fmt, ap);

	va_end(ap);
	return r;
}

int error_say_at(struct error *e, const char *where, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int r = fill(e, where, code, false, fmt, ap);

	va_end(ap);
	return r;
}

int error_prefix(struct error *e, const char *fmt, ...)
{
	char old[sizeof(e->text)];
	va_list ap;

	if (!e->code)
		return 0;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	size_t n = strlen(e->text);

	snprintf(e->text + n, sizeof(e->text) - n, ": %s", old);
	return -e->code;
}

void error_phase(struct error *e, const char *fmt, ...)
{
	va_list ap;

	if (e->code)
		return;
	va_start(ap, fmt);
	vsnprintf(e->phase, sizeof(e->phase), fmt, ap);
	va_end(ap);
}

void error_clear(struct error *e)
{
	memset(e, 0, sizeof(*e));
}
