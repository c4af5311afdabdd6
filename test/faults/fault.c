/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done at one change of state of a migration, named by the environment:
 *
 *	FERRY_FAULT=SIDE:STATE:before|after:ACTION     in FERRY_FAULT_DIR
 *
 * kill       this process is gone
 * kill-all   first the one that supervises it (ferry, ferryd), then this one
 * pause      says so by the fifo "reached", and waits until "go" can be read
 *
 * Every change of state is written to the file "states" there; "struck.SIDE" is made when the point is
 *reached. FERRY_FAULT_SILENCE: seconds until a silent peer is given up.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/peer.h"
#include "migrate/states.h"

static const char *dir;
static char *wanted;

static void note(const char *side, const char *state)
{
	cleanup_free char *path = xasprintf("%s/states", dir), *line = xasprintf("%s %s\n", side, state);
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd >= 0)
		(void)!write(fd, line, strlen(line));
}

/* Once on each side: who comes after the one that was hit has the same environment. */
static bool is_first(const char *side)
{
	cleanup_free char *path = xasprintf("%s/struck.%s", dir, side);
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	return fd >= 0;
}

static void wait_for_go(void)
{
	cleanup_free char *reached = xasprintf("%s/reached", dir), *go = xasprintf("%s/go", dir);
	int fd = open(reached, O_WRONLY | O_CLOEXEC);
	char c;

	(void)!write(fd, "x", 1);
	close(fd);
	do /* the death of its supervisor sends it a SIGTERM */
		fd = open(go, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	(void)!read(fd, &c, 1);
	close(fd);
}

static void act(const char *action)
{
	if (!strcmp(action, "pause")) {
		wait_for_go();
		return;
	}
	if (!strcmp(action, "kill-all"))
		kill(getppid(), SIGKILL);
	kill(getpid(), SIGKILL);
}

static void at_point(enum migration_state to, bool after)
{
	const char *side = state_rows[to].side == SIDE_SOURCE ? "source" : "destination";
	cleanup_free char *here =
		xasprintf("%s:%s:%s:", side, state_rows[to].name, after ? "after" : "before");

	if (after)
		note(side, state_rows[to].name);
	if (!wanted || strncmp(wanted, here, strlen(here)))
		return;
	const char *action = wanted + strlen(here);

	wanted = NULL;
	if (is_first(side))
		act(action);
}

static void __attribute__((constructor)) arm(void)
{
	const char *silence = getenv("FERRY_FAULT_SILENCE");

	dir = getenv("FERRY_FAULT_DIR");
	if (!dir)
		return;
	wanted = getenv("FERRY_FAULT");
	if (silence)
		peer_silence_secs = (unsigned)atoi(silence);
	machine_fault = at_point;
}
