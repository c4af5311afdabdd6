/* SPDX-License-Identifier: Apache-2.0 */
#include "base/events.h"

#include <stdarg.h>
#include <stdio.h>

void events_emit(const struct events *ev, json_t *event)
{
	if (ev && ev->emit && event)
		ev->emit(ev->ctx, event);
	json_decref(event);
}

void events_log(const struct events *ev, int level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!ev || !ev->emit)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	events_emit(ev, json_pack("{s:s,s:i,s:s}", "event", "log", "level", level, "text", text));
}
