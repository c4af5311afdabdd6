/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/deadline.h"

#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "base/util.h"

static volatile sig_atomic_t passed;
static const char *reason;

static void on_alarm(int sig)
{
	(void)sig;
	passed = 1;
	job_abort();
}

static void arm(uint64_t ms)
{
	/* Again every tenth of a second: the first may come between a look at the flag and a wait. */
	struct itimerval t = {.it_interval = {.tv_usec = ms ? 100000 : 0},
			      .it_value = {ms / 1000, ms % 1000 * 1000}};

	setitimer(ITIMER_REAL, &t, NULL);
}

void deadline_set(uint64_t ms, const char *why)
{
	struct sigaction sa = {.sa_handler = on_alarm}; /* no SA_RESTART: waits end */

	deadline_clear();
	if (!ms)
		return;
	reason = why;
	sigaction(SIGALRM, &sa, NULL);
	arm(ms);
}

void deadline_clear(void)
{
	arm(0);
}

int deadline_explain(int r, struct error *e)
{
	deadline_clear();
	if (r >= 0 || !passed)
		return r;
	error_clear(e);
	return error_say(e, ETIMEDOUT, "%s", reason);
}
