/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "procfs/owner.h"
#include "service/keeper.h"
#include "service/msg.h"
#include "service/rundir.h"

/* Characters of a migration's id that name it.  Digits only will do: a pid has at most seven (PID_MAX_LIMIT,
 * proc(5)). */
#define ID_LEAST 8

/* The answer to one request, or NULL. */
static json_t *ask(int sock, const char *op, const char *id)
{
	json_t *q = json_pack("{s:s,s:s*}", "op", op, "id", id), *answer = NULL;

	if (msg_send(sock, q, NULL, 0, false) < 0 || msg_recv(sock, &answer, NULL) != 1)
		answer = NULL;
	json_decref(q);
	return answer;
}

/* 1: told, and it has ended: its socket is gone. */
static int cancel(void *ctx, const char *path, int sock)
{
	json_t *answer = ask(sock, "cancel", NULL);
	bool told = answer;

	(void)ctx;
	json_decref(answer);
	/* Wait for the end: who cancels wants the target for himself. */
	for (int i = 0; told && i < 3000 && access(path, F_OK) == 0; i++)
		usleep(10000);
	return told;
}

static bool is_id(const char *text)
{
	return strlen(text) >= ID_LEAST && strlen(text) <= 36 &&
	       strspn(text, "0123456789abcdef-") == strlen(text);
}

/* A job of that migration, if one may have it. */
static int cancel_named(void *ctx, const char *path, int sock)
{
	const struct cli *c = ctx;
	const char *id = c->argv[0];
	struct error no = ERROR_INIT;
	json_t *status = ask(sock, "status", NULL);
	bool named = !strncmp(msg_str(status, "uuid", ""), id, strlen(id));

	if (named && c->o.owner >= 0)
		named = proc_owner_check((pid_t)msg_int(status, "target", 0), (uid_t)c->o.owner, &no) == 0;
	json_decref(status);
	if (!named)
		return 0;
	cleanup_close int again = rundir_connect(path, true); /* one request for each connection */

	return again < 0 ? 0 : cancel(NULL, path, again);
}

/* One that arrives here. */
static bool cancel_arrival(const char *id)
{
	cleanup_free char *path = xasprintf("%s/ferryd.sock", rundir_path());
	cleanup_close int sock = rundir_connect(path, true);
	json_t *answer = sock < 0 ? NULL : ask(sock, "cancel-migration", id);
	bool cancelled = json_is_true(json_object_get(answer, "cancelled"));

	json_decref(answer);
	return cancelled;
}

int verb_cancel(struct cli *c, struct error *e)
{
	pid_t pid = 0;

	if (!c->o.tree && c->argc == 1 && is_id(c->argv[0])) {
		if (rundir_each("jobs", 0, cancel_named, c) || (c->o.owner < 0 && cancel_arrival(c->argv[0])))
			return 0;
		return error_say(e, ESRCH, "no migration %s is under way here", c->argv[0]);
	}
	int r = cli_target(c, &pid, e);

	if (r < 0)
		return r;
	/* The keeper of a job's chain ends with the job; one without a job is told to end. */
	if (rundir_each("jobs", pid, cancel, NULL))
		return 0;
	r = keeper_end(pid, e);
	if (r)
		return MIN(r, 0);
	return error_say(e, ESRCH, "no job works on process %d", pid);
}
