/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/util.h"
#include "stress.h"

/* A target that makes no step in this time hangs. */
#define PATIENCE_NS 60000000000ull

static pid_t run(const char *const argv[])
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - sizeof("-target"));
	pid_t driver = getpid(), pid;

	if (n < 0)
		return -errno;
	strcpy(exe + n, "-target");
	fflush(NULL);
	pid = fork();
	if (pid)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int null = open("/dev/null", O_RDWR);

	if (getppid() != driver || null < 0)
		_exit(71);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	close_range(3, ~0u, 0);
	execv(exe, (char *const *)argv);
	_exit(72);
}

static int open_mem(pid_t pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/mem", pid);

	return open(path, O_RDWR | O_CLOEXEC);
}

static bool read_control(pid_t pid, int *mem, struct control *c)
{
	/* The memory is another one after an exec. */
	if (*mem >= 0 && pread(*mem, c, sizeof(*c), CONTROL_ADDR) == sizeof(*c) && c->magic == CONTROL_MAGIC)
		return true;
	if (*mem >= 0)
		close(*mem);
	*mem = open_mem(pid);
	return *mem >= 0 && pread(*mem, c, sizeof(*c), CONTROL_ADDR) == sizeof(*c) &&
	       c->magic == CONTROL_MAGIC;
}

static bool ended(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == pid;
}

static bool wait_ready(pid_t pid, int *mem, struct control *c)
{
	uint64_t limit = now_ns() + PATIENCE_NS;

	while (!read_control(pid, mem, c)) {
		if (ended(pid) || now_ns() > limit)
			return false;
		usleep(1000);
	}
	return true;
}

int subject_start(struct subject *s, const struct way_info *way, const char *cgroup, char *text, size_t size)
{
	char pid[16];
	const char *plain[] = {"stress-target", way->name, NULL};
	const char *caged[] = {"stress-target", "--cgroup", cgroup, way->name, NULL};
	const char *helper[] = {"stress-target", "--helper", way->name, pid, NULL};
	struct control c = {0};

	*s = (struct subject){.way = way, .mem = -1, .helper_mem = -1, .helper = -1};
	s->pid = run(cgroup ? caged : plain);
	if (s->pid < 0)
		return s->pid;
	if (!wait_ready(s->pid, &s->mem, &c)) {
		snprintf(text, size, "the target did not start");
		return -ECHILD;
	}
	if (c.skip[0]) {
		snprintf(text, size, "%.*s", (int)sizeof(c.skip), c.skip);
		return 1;
	}
	if (!(way->flags & WAY_HELPER))
		return 0;
	snprintf(pid, sizeof(pid), "%d", s->pid);
	s->helper = run(helper);
	if (s->helper < 0)
		return s->helper;
	if (!wait_ready(s->helper, &s->helper_mem, &c)) {
		snprintf(text, size, "the helper did not start");
		return -ECHILD;
	}
	return 0;
}

static void kill_and_wait(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(-pid, SIGKILL); /* its children are of its session and group */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

void subject_end(struct subject *s)
{
	kill_and_wait(s->helper);
	kill_and_wait(s->pid);
	cleanup_free char *file = xasprintf(STRESS_FILE, s->pid);

	unlink(file); /* where the way made one */
	if (s->mem >= 0)
		close(s->mem);
	if (s->helper_mem >= 0)
		close(s->helper_mem);
}

static bool advanced(struct subject *s, pid_t pid, int *mem, unsigned first)
{
	struct control c;

	if (!read_control(pid, mem, &c))
		return false;
	if (c.died[0])
		snprintf(s->died, sizeof(s->died), "%.*s", (int)sizeof(c.died), c.died);
	for (unsigned i = 0; i < c.writers; i++)
		if (c.steps[i] <= s->steps[first + i])
			return false;
	for (unsigned i = 0; i < c.writers; i++)
		s->steps[first + i] = c.steps[i];
	return true;
}

bool subject_progress(struct subject *s)
{
	uint64_t limit = now_ns() + PATIENCE_NS;
	bool target = false, helper = s->helper < 0 || (s->way->flags & WAY_SLOW);

	while (!target || !helper) {
		target = target || advanced(s, s->pid, &s->mem, 0);
		helper = helper || advanced(s, s->helper, &s->helper_mem, MAX_WRITERS);
		if (target && helper)
			break;
		if (ended(s->pid) || (s->helper > 0 && ended(s->helper)) || s->died[0] || now_ns() > limit)
			return false;
		usleep(200);
	}
	return true;
}

void subject_pause(struct subject *s, bool pause)
{
	uint32_t v = pause, is = !v;

	if (s->helper < 0)
		return;
	while (is != v) {
		if (pwrite(s->helper_mem, &v, sizeof(v), CONTROL_ADDR + offsetof(struct control, pause)) !=
			    sizeof(v) ||
		    pread(s->helper_mem, &is, sizeof(is), CONTROL_ADDR + offsetof(struct control, paused)) !=
			    sizeof(is) ||
		    ended(s->helper))
			return;
		usleep(100);
	}
}

void subject_relax(const char *cgroup, bool relax)
{
	static const struct {
		const char *file, *none;
	} limits[] = {{"memory.limit_in_bytes", "-1"}, {"memory.high", "max"}};
	static char was[32];

	for (size_t i = 0; cgroup && i < ARRAY_SIZE(limits); i++) {
		cleanup_free char *path = xasprintf("%s/%s", cgroup, limits[i].file), *text = NULL;
		cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

		if (fd < 0 || (relax && read_file(path, &text) < 0))
			continue;
		if (relax)
			snprintf(was, sizeof(was), "%.31s", text);
		/* Back below what is in use: the kernel swaps out first, and may say that it is busy. */
		for (int tries = 0; tries < 1000 && was[0]; tries++)
			if (dprintf(fd, "%s", relax ? limits[i].none : was) >= 0)
				break;
	}
}
