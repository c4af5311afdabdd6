/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/util.h"
#include "cli/cli.h"
#include "service/keeper.h"
#include "service/msg.h"
#include "service/rundir.h"

/* 1: told, and it has ended: its socket is gone. */
static int cancel(void *ctx, const char *path, int sock)
{
	json_t *q = json_pack("{s:s}", "op", "cancel"), *answer = NULL;
	int r = msg_send(sock, q, NULL, 0, false);

	(void)ctx;
	json_decref(q);
	if (r == 0)
		r = msg_recv(sock, &answer, NULL);
	json_decref(answer);
	/* Wait for the end: who cancels wants the target for himself. */
	for (int i = 0; r == 1 && i < 3000 && access(path, F_OK) == 0; i++)
		usleep(10000);
	return r == 1;
}

int verb_cancel(struct cli *c, struct error *e)
{
	pid_t pid = 0;
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
