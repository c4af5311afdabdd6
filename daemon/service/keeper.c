/* SPDX-License-Identifier: Apache-2.0 */
/* The side of the commands: find or start a keeper, ask it. The keeper itself is in keeper_main.c. */
#include "service/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "service/keeper_main.h"
#include "service/msg.h"
#include "service/rundir.h"

static int connect_existing(const char *path, pid_t pid, struct error *e)
{
	int sock = rundir_connect(path, false);

	if (sock >= 0)
		return sock;
	if (sock == -ENOENT || sock == -ECONNREFUSED)
		return -ENOENT;
	return error_set(e, -sock, "cannot reach the keeper of process %d at %s", pid, path);
}

static int start(pid_t pid, const char *path, int lock, const struct chain_ops *ops, struct error *e)
{
	int r = connect_existing(path, pid, e);

	if (r != -ENOENT || error_is(e))
		return r;
	cleanup_close int listener = rundir_listen(path, e);

	if (listener < 0)
		return -e->code;
	fflush(NULL);
	pid_t child = fork();

	if (child < 0)
		return error_set(e, errno, "cannot start a keeper for process %d", pid);
	if (child == 0) {
		close(lock);
		_exit(keeper_main(listener, path, pid, ops));
	}
	return rundir_connect(path, false);
}

int keeper_connect(pid_t pid, bool may_start, const struct chain_ops *ops, struct error *e)
{
	cleanup_free char *path = rundir_keeper_path(pid);
	cleanup_close int lock = -1;

	if (!may_start)
		return connect_existing(path, pid, e);
	if (rundir_lock(&lock, e) < 0)
		return -e->code;
	int r = start(pid, path, lock, ops, e);

	if (r < 0 && !error_is(e))
		return error_set(e, -r, "cannot reach the keeper of process %d", pid);
	return r;
}

int keeper_request(int sock, const struct chain_request *r, struct error *e)
{
	int fds[] = {r->dirfd, r->page_server};
	json_t *m = chain_request_pack(r);
	int code = m ? msg_send(sock, m, fds, r->page_server >= 0 ? 2 : 1, false) : -EINVAL;

	json_decref(m);
	return code < 0 ? error_set(e, -code, "cannot send the request to the keeper of process %d",
				    r->session.pid)
			: 0;
}

int keeper_end(pid_t pid, struct error *e)
{
	cleanup_close int sock = keeper_connect(pid, false, NULL, e);
	json_t *m = json_pack("{s:s}", "op", "end"), *answer = NULL;

	if (sock < 0) {
		json_decref(m);
		return sock == -ENOENT && !error_is(e) ? 0 : -e->code;
	}
	int r = msg_send(sock, m, NULL, 0, false);

	json_decref(m);
	if (r == 0)
		r = msg_recv(sock, &answer, NULL);
	if (r == 1)
		msg_to_error(json_object_get(answer, "result"), e);
	json_decref(answer);
	if (error_is(e))
		return -e->code;
	/* No answer: it ended at the same moment, which is what was wanted. */
	return 1;
}

int keeper_check(pid_t pid, struct error *e)
{
	cleanup_close int keeper = keeper_connect(pid, false, NULL, e);

	if (keeper >= 0)
		return error_say(e, EBUSY,
				 "process %d is tracked by a pre-dump chain: \"ferry cancel %d\" ends that",
				 pid, pid);
	return error_is(e) ? -e->code : 0;
}
