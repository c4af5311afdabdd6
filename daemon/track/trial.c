/* SPDX-License-Identifier: Apache-2.0 */
#include "track/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

/* Shared with the child: what it called last.  A string of the program, which is at the same address here. */
static const char *_Atomic *calls;

void trial_calls(const char *what)
{
	if (calls)
		atomic_store(calls, what);
}

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

/* -ETIME: nothing came till @end. */
static int read_until(int fd, void *data, size_t size, uint64_t end)
{
	size_t done = 0;

	while (done < size) {
		uint64_t now = now_ns();
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int n = now < end ? poll(&p, 1, (int)((end - now) / 1000000) + 1) : 0;

		if (n == 0)
			return -ETIME;
		ssize_t got = n < 0 ? -1 : read(fd, (char *)data + done, size - done);

		if (got == 0)
			return -EPIPE;
		if (got < 0 && (errno != EINTR || job_aborted()))
			return -errno;
		done += got > 0 ? (size_t)got : 0;
	}
	return 0;
}

/* It has closed its end, so it is ending; or it only looks so. */
static bool ended(pid_t pid, int *ret_status, uint64_t end)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	pid_t done;

	while ((done = waitpid(pid, ret_status, WNOHANG)) <= 0 && now_ns() < end)
		nanosleep(&ms, NULL);
	return done == pid;
}

static void tell(int r, int status, unsigned limit_ms, char *how, size_t size)
{
	const char *what = calls ? atomic_load(calls) : NULL, *in = what ? " in " : "";

	what = what ? what : "";
	if (r == -ETIME)
		snprintf(how, size, "did not come back%s%s within %g s", *what ? " from " : "", what,
			 limit_ms / 1e3);
	else if (WIFSIGNALED(status))
		snprintf(how, size, "crashed%s%s (signal %d, %s)", in, what, WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(how, size, "ended the process that called it%s%s (code %d)", in, what,
			 WEXITSTATUS(status));
}

/* The child's verdict in @made, and its end. */
static int run(void (*fn)(void *object), void *object, size_t size, unsigned limit_ms, void *made,
	       int *ret_status)
{
	uint64_t end = now_ns() + limit_ms * 1000000ull;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();

	if (pid == 0)
		child(fn, object, size, ends[1]);
	int r = pid < 0 ? -errno : 0;

	close(ends[1]);
	if (r == 0)
		r = read_until(ends[0], made, size, end);
	close(ends[0]);
	if (pid < 0 || (r == -EPIPE && ended(pid, ret_status, end)))
		return r;
	if (r == -EPIPE)
		r = -ETIME;
	kill(pid, SIGKILL); /* the verdict is there, or will not come */
	while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
		;
	return r;
}

int trial_run(void (*fn)(void *object), void *object, size_t size, unsigned limit_ms, char *how,
	      size_t how_size)
{
	cleanup_free void *made = xmalloc(size);
	int status = 0;
	void *shared = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	snprintf(how, how_size, "could not be tried: no process for it");
	calls = shared == MAP_FAILED ? NULL : shared;
	int r = run(fn, object, size, limit_ms, made, &status);

	if (r == 0)
		memcpy(object, made, size);
	if (r == -EPIPE || r == -ETIME) {
		tell(r, status, limit_ms, how, how_size);
		r = -ENOEXEC;
	}
	if (calls)
		munmap(shared, sizeof(*calls));
	calls = NULL;
	return r;
}
