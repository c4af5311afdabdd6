/* SPDX-License-Identifier: Apache-2.0 */
#include "base/urgent.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define BEST_NICE -20

static bool began, by_nice;
static int nice_before;

static bool urgent_task(pid_t tid)
{
	const struct sched_param p = {.sched_priority = 1};

	return sched_getscheduler(tid) == SCHED_OTHER &&
	       sched_setscheduler(tid, SCHED_RR | SCHED_RESET_ON_FORK, &p) == 0;
}

static void usual_task(pid_t tid)
{
	const struct sched_param p = {0};

	int policy = sched_getscheduler(tid);

	/* Without CAP_SYS_NICE children cannot be given our policy again. */
	if ((policy == (SCHED_RR | SCHED_RESET_ON_FORK) || policy == (SCHED_OTHER | SCHED_RESET_ON_FORK)) &&
	    sched_setscheduler(tid, SCHED_OTHER, &p) < 0)
		(void)sched_setscheduler(tid, SCHED_OTHER | SCHED_RESET_ON_FORK, &p);
}

static void each_thread(void (*what)(pid_t tid))
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (*entry->d_name != '.')
			what((pid_t)atoi(entry->d_name));
	if (d)
		closedir(d);
}

static void make_urgent(pid_t tid)
{
	const struct sched_param p = {0};

	if (urgent_task(tid) || !by_nice)
		return;
	if (setpriority(PRIO_PROCESS, (id_t)tid, BEST_NICE) == 0)
		(void)sched_setscheduler(tid, SCHED_OTHER | SCHED_RESET_ON_FORK, &p);
}

static void make_usual(pid_t tid)
{
	usual_task(tid);
	if (by_nice)
		(void)setpriority(PRIO_PROCESS, (id_t)tid, nice_before);
}

void urgent_begin(void)
{
	if (began || sched_getscheduler(0) != SCHED_OTHER)
		return;
	nice_before = getpriority(PRIO_PROCESS, 0);
	by_nice = !urgent_task(gettid());
	began = true;
	each_thread(make_urgent);
}

void urgent_end(void)
{
	if (!began)
		return;
	each_thread(make_usual);
	began = false;
}
