/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Live migration between two daemons: docs/migration-protocol.md. */
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/events.h"
#include "engine/restore.h"
#include "engine/session.h"
#include "migrate/link.h"

struct migrate_options {
	struct session_options session;
	bool post_copy_if_possible; /* nobody asked for it: without, if the destination cannot */
	const char *to;             /* HOST[:PORT], [v6]:PORT */
	struct link_options link;
	const char *journal_dir; /* NULL: /run/ferry */
	uint64_t time_limit_ms;  /* for the rounds; 0: none */
	unsigned streams;        /* connections; 0, 1: one */
};

/* Source. Returns 0 when the target runs at the destination; otherwise it runs here as before (or, after a
 * commit whose outcome is unknown, stays frozen while this function asks the peer until it knows or is
 * aborted). */
int migrate_run(const struct migrate_options *o, const struct events *ev, struct error *e);
/* Destination: serve one accepted TCP connection (taken over) until its migration has ended; to be called in
 * a process of its own, which becomes the parent of the migrated root and may exit afterwards. */
struct serve_options {
	const char *journal_dir; /* NULL: /run/ferry */
	struct link_options link;
	/* For recover_run: somebody is in charge of this target and will see to it himself. NULL: nobody. */
	bool (*attended)(pid_t target);
	/* May a migration begin? Returns 0: yes; else how many there are until it is its turn (to be asked
	 * again, which waits some seconds for a change); or -errno: no. NULL: always. */
	int (*admit)(void *ctx, struct error *e);
	void *admit_ctx;
	struct restore_limits limits; /* of one peer */
	char address[64];             /* of the peer, which stands for it where it shows no key */
	/* Called once, after the first round, while the target runs at its source: the processes that it will
	 * be here, to be put where they belong. NULL: they stay. */
	void (*place)(const char *uuid, const pid_t *pids, size_t n, const struct events *ev);
};
int migrate_serve(int sock, const struct serve_options *o, const struct events *ev, struct error *e);
