/* SPDX-License-Identifier: Apache-2.0 */
#include "service/script.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/util.h"

static void exec_script(const struct script *s, const char *action, pid_t root)
{
	sigset_t none;
	char pid[16];

	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setenv("CRTOOLS_SCRIPT_ACTION", action, 1);
	setenv("CRTOOLS_IMAGE_DIR", s->images_dir, 1);
	if (root > 0) {
		snprintf(pid, sizeof(pid), "%d", root);
		setenv("CRTOOLS_INIT_PID", pid, 1);
	} else {
		unsetenv("CRTOOLS_INIT_PID");
	}
	dup2(STDERR_FILENO, STDOUT_FILENO); /* stdout may carry events */
	execl("/bin/sh", "sh", "-c", s->path, (char *)NULL);
	_exit(127);
}

int script_run(const struct script *s, const char *action, pid_t root, struct error *e)
{
	int status;

	if (!s || !s->path)
		return 0;
	fflush(NULL);
	pid_t pid = fork();

	if (pid < 0)
		return error_set(e, errno, "cannot start the action script %s", s->path);
	if (pid == 0)
		exec_script(s, action, root);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return error_set(e, errno, "cannot wait for the action script %s", s->path);
		if (job_aborted())
			kill(pid, SIGTERM);
	}
	if (WIFSIGNALED(status))
		return error_say(e, ECANCELED, "the action script %s was killed by signal %d at %s", s->path,
				 WTERMSIG(status), action);
	if (WEXITSTATUS(status))
		return error_say(e, ECANCELED, "the action script %s failed at %s with code %d", s->path,
				 action, WEXITSTATUS(status));
	return 0;
}

static int run_hook(void *ctx, const char *action, pid_t root, struct error *e)
{
	return script_run(ctx, action, root, e);
}

struct hooks script_hooks(struct script *s)
{
	return (struct hooks){.run = run_hook, .ctx = s};
}
