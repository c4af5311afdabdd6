/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard is forked before anything is changed.  It knows what is to be undone, and waits for the end of a
 * pipe that only we hold: that comes when we say so, and when we are killed.  Where there is no CPU
 * controller it is also the parent of the process that freezes the target and lets it go in turns
 * (engine/pulse.c), and sees its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "engine/throttle_internal.h"
#include "procfs/procfs.h"

#define MIN_US 1000 /* of a period, the least that the kernel takes */

int throttle_write(const char *dir, const char *file, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, file);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : write_full(fd, text, strlen(text));
}

int throttle_limit(const struct throttle *t, double cpus)
{
	long us = cpus > 0 ? MAX((long)(cpus * PERIOD_US), MIN_US) : -1;
	cleanup_free char *text = NULL;

	if (t->pulse) {
		pulse_set(t->pulse, cpus > 0 ? cpus / t->full : 1);
		return 0;
	}
	if (!t->v2) {
		text = xasprintf("%ld", us);
		return throttle_write(t->dir, "cpu.cfs_quota_us", text);
	}
	if (us < 0 && t->before)
		return throttle_write(t->dir, "cpu.max", t->before);
	text = us < 0 ? xasprintf("max %d", PERIOD_US) : xasprintf("%ld %d", us, PERIOD_US);
	return throttle_write(t->dir, "cpu.max", text);
}

int throttle_move(pid_t pid, const char *dir)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return throttle_write(dir, "cgroup.procs", text);
}

/* --- undoing ------------------------------------------------------------------------------------------ */

static const char *home_of(const struct throttle *t, pid_t pid)
{
	struct proc_stat st;
	struct error ignore = ERROR_INIT;

	for (size_t i = 0; i < t->n; i++)
		if (t->places[i].pid == pid && proc_stat_read(pid, 0, &st, &ignore) == 0 &&
		    st.start_time == t->places[i].start)
			return t->places[i].dir;
	return t->places[0].dir; /* born since */
}

static void move_home(const struct throttle *t)
{
	cleanup_free char *procs = xasprintf("%s/cgroup.procs", t->dir);

	/* Some may be born while we move their parents. */
	for (int pass = 0; pass < 100; pass++) {
		cleanup_free char *text = NULL;
		char *save = NULL;

		if (read_file(procs, &text) <= 0)
			return;
		for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			(void)throttle_move(atoi(line), home_of(t, atoi(line)));
	}
}

static void go_home(const struct throttle *t)
{
	if (!t->own)
		return;
	move_home(t);
	/* The dead leave it a moment later. */
	for (int i = 0; i < 500 && rmdir(t->dir) < 0 && errno == EBUSY; i++)
		usleep(10000);
}

void throttle_undo(const struct throttle *t)
{
	(void)throttle_limit(t, 0);
	go_home(t);
}

/* --- the guard ---------------------------------------------------------------------------------------- */

static void wait_for_end(void)
{
	char c;

	while (read(0, &c, 1) < 0 && errno == EINTR)
		;
}

/* Also for the end of the one that freezes: then nothing does. Killed, it may have left the target frozen. */
static void attend(const struct throttle *t, pid_t pulse)
{
	struct pollfd fds[] = {{.fd = 0, .events = POLLIN}, {.events = POLLIN}};

	fds[1].fd = sys_pidfd_open(pulse, 0);
	while (fds[1].fd >= 0 && poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	kill(pulse, SIGKILL);
	while (waitpid(pulse, NULL, 0) < 0 && errno == EINTR)
		;
	pulse_let_go(t->pulse);
	go_home(t);
}

static void __attribute__((noreturn)) stand_guard(const struct throttle *t, int end)
{
	pid_t pulse = t->pulse ? fork() : 0;

	if (t->pulse && pulse == 0)
		pulse_run(t->pulse);
	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (pulse < 0 || dup2(end, 0) < 0 || close_range(1, ~0u, 0) < 0)
		_exit(1);
	if (t->pulse) {
		attend(t, pulse);
		_exit(0);
	}
	wait_for_end();
	throttle_undo(t);
	_exit(0);
}

int throttle_post_guard(struct throttle *t, struct error *e)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(e, errno, "make a pipe");
	t->guard = fork();
	if (t->guard == 0) {
		close(ends[1]);
		stand_guard(t, ends[0]);
	}
	close(ends[0]);
	if (t->guard < 0) {
		close(ends[1]);
		return error_set(e, errno, "start a process that undoes the throttling");
	}
	t->pipe = ends[1];
	return t->pulse ? pulse_begin(t->pulse, e) : 0;
}

bool throttle_is_guarded(struct throttle *t)
{
	int status;

	if (t->guard > 0 && waitpid(t->guard, &status, WNOHANG) == t->guard) {
		t->guard = 0;
		t->undone = WIFEXITED(status) && !WEXITSTATUS(status);
	}
	return t->guard > 0;
}

void throttle_relieve_guard(struct throttle *t)
{
	int status = 0;

	if (t->pipe < 0)
		return;
	close(TAKE_FD(t->pipe));
	if (t->guard > 0) {
		while (waitpid(t->guard, &status, 0) < 0 && errno == EINTR)
			;
		t->undone = WIFEXITED(status) && !WEXITSTATUS(status);
	}
	if (!t->undone) /* killed: then it is up to us */
		throttle_undo(t);
}
