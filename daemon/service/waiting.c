/* SPDX-License-Identifier: Apache-2.0 */
#include "service/waiting.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

void waiting_add(struct waiting_room *r, int sock, const char *name, struct waiting *ret_gone)
{
	ret_gone->sock = -1;
	if (r->n == WAITING_MAX) {
		*ret_gone = waiting_take(r, 0);
		close(ret_gone->sock);
	}
	struct waiting *w = &r->w[r->n++];

	*w = (struct waiting){.sock = sock, .since = now_ns()};
	snprintf(w->name, sizeof(w->name), "%s", name);
}

struct waiting waiting_take(struct waiting_room *r, size_t i)
{
	struct waiting w = r->w[i];

	memmove(&r->w[i], &r->w[i + 1], (--r->n - i) * sizeof(r->w[0]));
	return w;
}

size_t waiting_poll(const struct waiting_room *r, struct pollfd *p)
{
	for (size_t i = 0; i < r->n; i++)
		p[i] = (struct pollfd){r->w[i].sock, POLLIN, 0};
	return r->n;
}

int waiting_left_ms(const struct waiting_room *r, int limit_ms, uint64_t now)
{
	if (!r->n)
		return -1;
	uint64_t end = r->w[0].since + limit_ms * 1000000ull;

	return now >= end ? 0 : (int)((end - now) / 1000000) + 1;
}
