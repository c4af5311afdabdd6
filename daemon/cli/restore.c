/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/util.h"
#include "cli/cli.h"
#include "service/script.h"
#include "service/worker.h"

/* Ctrl-C during the restore ends it in order; afterwards it ends only us. */
static void default_signals(void)
{
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
}

/* The exit code of a shell for it. */
static int wait_for(pid_t root, struct error *e)
{
	int status;

	while (waitpid(root, &status, 0) < 0)
		if (errno != EINTR)
			return error_set(e, errno, "cannot wait for the restored process %d", root);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int become(char **argv, struct error *e)
{
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	return error_set(e, errno, "the tree runs, but %s cannot be executed", argv[0]);
}

static int check(const struct cli *c, struct error *e)
{
	if (c->o.exec_cmd ? !c->argc : c->argc)
		return error_say(e, EINVAL,
				 c->o.exec_cmd ? "--exec-cmd needs a command behind --"
					       : "restore takes no operands");
	return cli_check_cgroups(c, e);
}

int verb_restore(struct cli *c, struct error *e)
{
	cleanup_free char *images = cli_images_path(c);
	struct script script = {c->o.action_script, images};
	struct hooks hooks = script_hooks(&script);
	struct restore_options o = {.leave_stopped = c->o.leave_stopped,
				    .sibling = c->o.restore_sibling,
				    .detached = c->o.restore_detached,
				    .hooks = script.path ? &hooks : NULL};
	pid_t root = 0;
	int r = check(c, e);

	if (r < 0)
		return r;
	cleanup_close int dirfd = cli_open_images(c, e);

	if (dirfd < 0)
		return dirfd;
	cli_state_options(c, &o.state);
	c->display.verb = "restored";
	worker_signals();
	r = script_run(&script, "pre-restore", 0, e);
	if (r == 0)
		r = restore_from_dir(dirfd, &o, &c->events, &root, e);
	default_signals();
	if (r < 0)
		return r;
	log_line(&c->log, 3, "process %d runs", root);
	r = cli_write_pidfile(c, root, e);
	if (r < 0)
		return error_prefix(e, "process %d runs, but", root);
	if (c->o.exec_cmd)
		return become(c->argv, e);
	return c->o.restore_detached || c->o.restore_sibling ? 0 : wait_for(root, e);
}
