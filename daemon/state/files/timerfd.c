/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers as descriptors.  fdinfo alone is wrong for an overdue periodic timer (it says 1 tick where 20 have
 * passed): timerfd_gettime(2) on our copy brings it up to date, changing nothing that the target could see.
 *
 * What remains travels as time left.  Only absolute timers of the wall clock keep their date.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"

#define SET_TICKS _IOW('T', 0, uint64_t)
#define SECOND    1000000000ull

static bool timerfd_match(const struct fd_facts *f)
{
	return !strcmp(f->link, "anon_inode:[timerfd]");
}

static bool is_wall_clock(int clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM;
}

static int64_t time_of(int clock)
{
	struct timespec now = {0};

	clock_gettime(clock, &now);
	return now.tv_sec * (int64_t)SECOND + now.tv_nsec;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ns / SECOND, ns % SECOND};
}

static int timerfd_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	struct itimerspec left;
	uint64_t clock = 0, flags = 0, ticks = 0;

	(void)c;
	if (timerfd_gettime(f->copy, &left) < 0)
		return error_set(e, errno, "pid %d fd %d: reading its timer", f->pid, f->fd);
	const char *info = fd_facts_info(f, e);

	if (!info)
		return -e->code;
	if (!proc_field_u64(info, "clockid", 10, &clock) || !proc_field_u64(info, "ticks", 10, &ticks) ||
	    !proc_field_u64(info, "settime flags", 8, &flags))
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show its timer", f->pid, f->fd);
	Ferry__TimerFd *t = m->timerfd = xmalloc(sizeof(*t));

	ferry__timer_fd__init(t);
	t->clock = clock;
	t->settime_flags = flags & (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
	t->value_ns = left.it_value.tv_sec * SECOND + left.it_value.tv_nsec;
	t->interval_ns = left.it_interval.tv_sec * SECOND + left.it_interval.tv_nsec;
	t->ticks = ticks;
	if (t->value_ns && t->settime_flags & TFD_TIMER_ABSTIME && is_wall_clock(clock))
		t->expires_ns = time_of(clock) + t->value_ns;
	return 0;
}

static int timerfd_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	const Ferry__TimerFd *t = m->timerfd;

	(void)r;
	if (!t)
		return error_say(e, EPROTO, "the image says nothing of timerfd %llu",
				 (unsigned long long)m->id);
	struct itimerspec set = {.it_interval = to_timespec(t->interval_ns)};
	cleanup_close int fd = timerfd_create(t->clock, TFD_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "pid %d fd %d: making a timer of clock %d", m->pid, m->fd,
				 t->clock);
	if (t->value_ns && t->settime_flags & TFD_TIMER_ABSTIME)
		set.it_value = to_timespec(t->expires_ns > 0 ? (uint64_t)t->expires_ns
							     : time_of(t->clock) + t->value_ns);
	else
		set.it_value = to_timespec(t->value_ns);
	if ((t->value_ns || t->interval_ns || t->settime_flags) &&
	    timerfd_settime(fd, t->settime_flags, &set, NULL) < 0)
		return error_set(e, errno, "pid %d fd %d: setting a timer", m->pid, m->fd);
	/* After the time, which clears them. */
	uint64_t ticks = t->ticks;

	if (ticks && ioctl(fd, SET_TICKS, &ticks) < 0)
		return error_set(e, errno, "pid %d fd %d: setting the %" PRIu64 " ticks of a timer", m->pid,
				 m->fd, ticks);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

const struct fd_type fd_timerfd = {
	.name = "timerfd",
	.kind = FILE_KIND(TIMERFD),
	.match = timerfd_match,
	.capture = timerfd_capture,
	.open = timerfd_open,
};
