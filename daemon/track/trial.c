/* SPDX-License-Identifier: Apache-2.0 */
#include "track/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

static void child(void (*fn)(void *object), void *object, size_t size, int to)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};
	const struct rlimit no_core = {0};

	for (size_t i = 0; i < ARRAY_SIZE(crashes); i++)
		signal(crashes[i], SIG_DFL); /* whatever our handlers would do */
	setrlimit(RLIMIT_CORE, &no_core);
	fn(object);
	_exit(write_full(to, object, size) < 0);
}

int trial_run(void (*fn)(void *object), void *object, size_t size, char *how, size_t how_size)
{
	cleanup_free void *made = xmalloc(size);
	int ends[2], status = 0;

	snprintf(how, how_size, "could not be tried: no process for it");
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();

	if (pid == 0)
		child(fn, object, size, ends[1]);
	int r = pid < 0 ? -errno : 0;

	close(ends[1]);
	if (r == 0)
		r = read_full(ends[0], made, size);
	close(ends[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r == 0)
		memcpy(object, made, size);
	if (r != -EPIPE)
		return r;
	if (WIFSIGNALED(status))
		snprintf(how, how_size, "crashed (signal %d, %s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(how, how_size, "ended the process that called it (code %d)", WEXITSTATUS(status));
	return -ENOEXEC;
}
