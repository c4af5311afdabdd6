/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pulse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/util.h"
#include "freeze/cgroup.h"

#define PERIOD_US 20000u /* short: the pauses are not to be felt as such */
#define WHOLE     1000u
#define ANSWER_MS 10000u

struct shared {                   /* between the one that commands and the one that does */
	_Atomic uint32_t share;   /* of WHOLE */
	_Atomic uint32_t command; /* one more with each */
	_Atomic uint32_t done;    /* the last that has been done */
	_Atomic pid_t pid;        /* of the one that does; 0: none */
	_Atomic bool ended;
};

struct pulse {
	struct shared *shared;
	int pipe[2]; /* a byte with each command */
	int pidfd;   /* of the one that does */
	char *dir;
};

int pulse_new(struct pulse **ret, const char *dir, struct error *e)
{
	struct pulse *p = xcalloc(1, sizeof(*p));

	p->shared = mmap(NULL, sizeof(*p->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p->shared == MAP_FAILED || pipe2(p->pipe, O_CLOEXEC) < 0) {
		int err = errno;

		if (p->shared != MAP_FAILED)
			munmap(p->shared, sizeof(*p->shared));
		free(p);
		return error_set(e, err, "prepare to freeze and let go in turns");
	}
	p->shared->share = WHOLE;
	p->pidfd = -1;
	p->dir = xstrdup(dir);
	*ret = p;
	return 0;
}

/* --- the one that does -------------------------------------------------------------------------------- */

static void set_frozen(const struct pulse *p, bool frozen)
{
	struct error ignore = ERROR_INIT;

	(void)cgroup_set(p->dir, frozen, &ignore);
}

/* For so long, or until there is a command. False: the one that commands is no more. */
static bool pause_us(unsigned us)
{
	struct pollfd fd = {.events = POLLIN};
	struct timespec time = {.tv_nsec = us * 1000l};
	char c[64];

	return ppoll(&fd, 1, &time, NULL) <= 0 || read(0, c, sizeof(c)) > 0;
}

void pulse_run(struct pulse *p)
{
	pid_t parent = getppid();
	struct shared *s = p->shared;
	bool goes_on = true;

	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (dup2(p->pipe[0], 0) < 0 || close_range(1, ~0u, 0) < 0)
		_exit(1);
	/* It must not be this process that comes too late to let it go. */
	(void)setpriority(PRIO_PROCESS, 0, -20);
	s->pid = getpid();
	while (goes_on && getppid() == parent) {
		uint32_t command = s->command, share = s->share;

		set_frozen(p, false);
		s->done = command;
		goes_on = pause_us(PERIOD_US / WHOLE * share);
		if (share >= WHOLE || !goes_on || s->command != command)
			continue;
		set_frozen(p, true);
		goes_on = pause_us(PERIOD_US / WHOLE * (WHOLE - share));
	}
	set_frozen(p, false);
	s->ended = true;
	_exit(0);
}

/* --- the one that commands ------------------------------------------------------------------------------ */

int pulse_begin(struct pulse *p, struct error *e)
{
	for (unsigned ms = 0; !p->shared->pid && ms < ANSWER_MS; ms++)
		usleep(1000);
	if (!p->shared->pid)
		return error_say(e, ETIMEDOUT, "the process that freezes the target in turns does not begin");
	p->pidfd = sys_pidfd_open(p->shared->pid, 0);
	return p->pidfd < 0 ? error_set(e, errno, "the process that freezes the target in turns has ended")
			    : 0;
}

static bool has_ended(const struct pulse *p)
{
	struct pollfd fd = {.fd = p->pidfd, .events = POLLIN};

	return p->shared->ended || p->pidfd < 0 || poll(&fd, 1, 0) > 0;
}

void pulse_set(struct pulse *p, double share)
{
	struct shared *s = p->shared;
	uint64_t limit = now_ns() + ANSWER_MS * 1000000ull;

	s->share = share >= 1 ? WHOLE : MAX((uint32_t)(share * WHOLE), WHOLE / 20);
	uint32_t command = ++s->command;

	(void)!write(p->pipe[1], "", 1);
	if (share < 1)
		return;
	while (!has_ended(p) && s->done != command) {
		/* It does not get to run: its turn is over. */
		if (now_ns() > limit)
			sys_pidfd_send_signal(p->pidfd, SIGKILL);
		usleep(200);
	}
	pulse_let_go(p);
}

void pulse_let_go(const struct pulse *p)
{
	set_frozen(p, false);
}

void pulse_free(struct pulse *p)
{
	if (!p)
		return;
	if (p->pidfd >= 0)
		close(p->pidfd);
	close(p->pipe[0]);
	close(p->pipe[1]);
	munmap(p->shared, sizeof(*p->shared));
	free(p->dir);
	free(p);
}
