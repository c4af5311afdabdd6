/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread frozen inside a blocking call shows a restart code in its result register.  At the source the
 * kernel acts on it when the thread is let go; the new process at the destination has no such call to
 * continue, so the decision is made here, once, and written into the registers.
 *
 * ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND: nothing of the call has happened, or what has happened is in
 * its arguments (ppoll, select and pselect6 have the rest of the timeout written back): issued again.
 *
 * ERESTART_RESTARTBLOCK: the kernel holds the original deadline in a place that nobody can read.  By call:
 *
 * nanosleep, clock_nanosleep: again.  The kernel stored the rest of the time, if there is a place for
 *	it, when it was interrupted; so the request of the new call is that place, which makes it exact.
 *	(Often it is the same place anyway, as in sleep(3).  If not, the program finds another value in one
 *	argument register after the call; a function call may leave any value there.)  Without a place,
 *	as in usleep(3): the whole time once more; too long, but a sleep may never end early.
 *
 * futex: again.  Exact for WAIT_BITSET, whose deadline is absolute (what libc uses).  A plain WAIT waits its
 *	whole timeout once more.
 *
 * poll: again.  Exact for no timeout and for an infinite one, else too long by what had passed.
 *
 * any other, or a number that is not known: EINTR, as the kernel does when it has nothing to restart.
 *
 * Too long, by at most what had passed before the move, is chosen over EINTR: a program that has no signal
 * handler need not expect any, and often takes it for a failure.
 *
 * When the call had been interrupted before (by us, in an earlier round), its number reads as
 * restart_syscall.  Then the instruction before the call mostly tells it (regs.c).
 *
 * A real result, also EINTR (epoll_wait, semop: seen at the source as well), stays.
 */
#include "state/task/restart.h"

#include <sys/syscall.h>

static enum restart_rule sleep_rest(uint64_t *request, uint64_t rest)
{
	if (rest)
		*request = rest;
	return RESTART_AGAIN;
}

static enum restart_rule block_rule(long nr, uint64_t args[6])
{
	switch (nr) {
#ifdef SYS_poll
	case SYS_poll:
#endif
	case SYS_futex:
		return RESTART_AGAIN;
	case SYS_nanosleep:
		return sleep_rest(&args[0], args[1]);
	case SYS_clock_nanosleep:
		return sleep_rest(&args[2], args[3]);
	default:
		return RESTART_EINTR;
	}
}

enum restart_rule restart_rule(long nr, int64_t code, uint64_t args[6])
{
	switch (code) {
	case -RESTART_SYS:
	case -RESTART_NOINTR:
	case -RESTART_NOHAND:
		return nr < 0 ? RESTART_EINTR : RESTART_AGAIN;
	case -RESTART_BLOCK:
		return block_rule(nr, args);
	default:
		return RESTART_KEEP;
	}
}
