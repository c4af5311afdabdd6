/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interval timers and POSIX timers of a process.
 *
 * /proc/PID/timers lists what a timer is; what is left of it is asked inside.  Values are relative to
 * the freeze: the time the move takes does not count, for absolute timers too (the kernel does not tell them
 * apart).  A timer that fires while the target is frozen leaves a pending signal, which sigpending.c carries.
 *
 * Timer ids are visible to the program, so they must be the same.  Linux 6.16 lets a process choose them
 * (PR_TIMER_CREATE_RESTORE_IDS).  Older kernels count up from zero in a fresh process: timers are created and
 * deleted until the wanted id is next.
 *
 * Overruns: that of the last signal cannot be set; that of a pending one is in its siginfo.
 */
#include "state/task/task.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"

#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS     77
#define PR_TIMER_CREATE_RESTORE_IDS_OFF 0
#define PR_TIMER_CREATE_RESTORE_IDS_ON  1
#define PR_TIMER_CREATE_RESTORE_IDS_GET 2
#endif
#define INTERVAL_TIMERS  3
#define COUNTED_IDS_MAX  65536 /* more than this by counting would take too long */
#define CLOCK_OWN_THREAD (-2)  /* as the kernel shows the CPU clock of the thread that made the timer */

#define NSEC_PER_SEC 1000000000ll
#define USEC_PER_SEC 1000000ll

struct timers_asked {
	size_t interval;           /* data offset: struct itimerval[3] */
	size_t values;             /* struct itimerspec[n] */
	struct proc_timer *timers; /* in the same allocation */
	size_t n;
	unsigned overrun; /* first of n entries */
};

static int by_id(const void *a, const void *b)
{
	const struct proc_timer *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* Whose CPU clock is it? In a process of several threads nobody tells. */
static int check_clock(const struct process *p, const struct proc_timer *t, struct error *e)
{
	if (t->clock != CLOCK_OWN_THREAD || p->n_threads == 1)
		return 0;
	return error_say(
		e, EOPNOTSUPP,
		"pid %d: its timer %d runs on the CPU clock of one of its threads, which cannot be moved yet",
		p->pid, t->id);
}

static int timers_preflight(struct capture *c, struct process *p, struct error *e)
{
	cleanup_free struct proc_timer *timers = NULL;
	size_t n;
	int r = proc_timers_read(p->pid, &timers, &n, e);

	(void)c;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = check_clock(p, &timers[i], e);
	return r;
}

static int timers_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b,
		      void **ret_state, struct error *e)
{
	cleanup_free struct proc_timer *timers = NULL;
	size_t n;
	int r = proc_timers_read(p->pid, &timers, &n, e);

	(void)c;
	(void)t;
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = check_clock(p, &timers[i], e);
		if (r < 0)
			return r;
	}

	struct timers_asked *a = xcalloc(1, sizeof(*a) + n * sizeof(*timers));

	a->timers = (struct proc_timer *)(a + 1);
	a->n = n;
	if (n)
		memcpy(a->timers, timers, n * sizeof(*timers));
	qsort(a->timers, n, sizeof(*timers), by_id);
	a->interval = batch_reserve(b, INTERVAL_TIMERS * sizeof(struct itimerval));
	a->values = batch_reserve(b, n * sizeof(struct itimerspec) + 1);
	for (unsigned i = 0; i < INTERVAL_TIMERS; i++)
		batch_call(b, "get interval timer", SYS_getitimer, ARG(i),
			   ARG_DATA(a->interval + i * sizeof(struct itimerval)));
	for (size_t i = 0; i < n; i++)
		batch_call(b, "get timer", SYS_timer_gettime, ARG(a->timers[i].id),
			   ARG_DATA(a->values + i * sizeof(struct itimerspec)));
	for (size_t i = 0; i < n; i++) {
		unsigned entry =
			batch_call(b, "get timer overrun", SYS_timer_getoverrun, ARG(a->timers[i].id));

		if (i == 0)
			a->overrun = entry;
	}
	*ret_state = a;
	return 0;
}

static Ferry__IntervalTimer *interval_message(const struct itimerval *v)
{
	Ferry__IntervalTimer *m = MESSAGE_NEW(Ferry__IntervalTimer, ferry__interval_timer);

	m->value_us = v->it_value.tv_sec * USEC_PER_SEC + v->it_value.tv_usec;
	m->interval_us = v->it_interval.tv_sec * USEC_PER_SEC + v->it_interval.tv_usec;
	return m;
}

static Ferry__PosixTimer *posix_message(const struct proc_timer *t, const struct itimerspec *v,
					int64_t overrun)
{
	Ferry__PosixTimer *m = MESSAGE_NEW(Ferry__PosixTimer, ferry__posix_timer);

	m->id = t->id;
	m->clock = t->clock;
	m->signal = t->signal;
	m->notify = t->notify;
	m->notify_tid = t->notify_tid;
	m->sigev_value = t->sigev_value;
	m->value_ns = v->it_value.tv_sec * NSEC_PER_SEC + v->it_value.tv_nsec;
	m->interval_ns = v->it_interval.tv_sec * NSEC_PER_SEC + v->it_interval.tv_nsec;
	m->overrun = overrun;
	return m;
}

static int timers_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		       struct error *e)
{
	const struct timers_asked *a = state;
	Ferry__Timers *m = MESSAGE_NEW(Ferry__Timers, ferry__timers);

	(void)t;
	(void)e;
	m->interval = xcalloc(INTERVAL_TIMERS, sizeof(m->interval[0]));
	m->n_interval = INTERVAL_TIMERS;
	for (unsigned i = 0; i < INTERVAL_TIMERS; i++) {
		struct itimerval v;

		memcpy(&v, batch_data(b, a->interval + i * sizeof(v)), sizeof(v));
		m->interval[i] = interval_message(&v);
	}
	/* Fired, signal not yet taken: the kernel would arm it again when it is. At the destination nothing
	 * would. */
	if (!m->interval[ITIMER_REAL]->value_us)
		m->interval[ITIMER_REAL]->value_us = m->interval[ITIMER_REAL]->interval_us;
	m->posix = a->n ? xcalloc(a->n, sizeof(m->posix[0])) : NULL;
	m->n_posix = a->n;
	for (size_t i = 0; i < a->n; i++) {
		struct itimerspec v;

		memcpy(&v, batch_data(b, a->values + i * sizeof(v)), sizeof(v));
		m->posix[i] = posix_message(&a->timers[i], &v, batch_result(b, a->overrun + i));
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_TIMERS, p->pid, 0, &m->base);
	return 0;
}

/* --- rebuild ------------------------------------------------------------------------------------------- */
static bool can_choose_ids(void)
{
	return prctl(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) >= 0;
}

static int timers_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
			struct error *e)
{
	const Ferry__Timers *m = (const Ferry__Timers *)msg;

	(void)r;
	(void)tid;
	if (m->n_interval > INTERVAL_TIMERS)
		return error_say(e, EPROTO, "pid %d: the image has %zu interval timers", pid, m->n_interval);
	for (size_t i = 0; i < m->n_posix; i++) {
		if (m->posix[i]->id < 0 || (i && m->posix[i]->id <= m->posix[i - 1]->id))
			return error_say(e, EPROTO, "pid %d: the timers in the image are not in order", pid);
	}
	if (m->n_posix && m->posix[m->n_posix - 1]->id > COUNTED_IDS_MAX && !can_choose_ids())
		return error_say(
			e, EOPNOTSUPP,
			"pid %d: has timer %d, and this kernel cannot create a timer with a given number",
			pid, m->posix[m->n_posix - 1]->id);
	return 0;
}

/* timer_create, and see that the id is the wanted one. */
static void create_timer(struct batch *b, int clock, const struct sigevent *sev, int id)
{
	size_t slot = batch_put(b, &id, sizeof(id));
	size_t at = batch_put(b, sev, sizeof(*sev));

	batch_call(b, "create timer", SYS_timer_create, ARG(clock), ARG_DATA(at), ARG_DATA(slot));
	batch_accept_equal(
		b, batch_op(b, "create timer with the same number", PB_OP_LOAD, ARG_DATA(slot), ARG(4)), id);
}

static void create_timers(struct batch *b, const Ferry__Timers *m)
{
	const struct sigevent nothing = {.sigev_notify = SIGEV_NONE};
	bool choose = can_choose_ids();
	int next = 0;

	if (choose)
		batch_call(b, "choose timer numbers", SYS_prctl, ARG(PR_TIMER_CREATE_RESTORE_IDS),
			   ARG(PR_TIMER_CREATE_RESTORE_IDS_ON), ARG(0), ARG(0), ARG(0));
	for (size_t i = 0; i < m->n_posix; i++) {
		const Ferry__PosixTimer *t = m->posix[i];
		struct sigevent sev = {.sigev_signo = t->signal, .sigev_notify = t->notify};

		sev.sigev_value.sival_ptr = (void *)t->sigev_value;
		if (t->notify & SIGEV_THREAD_ID)
			sev._sigev_un._tid = t->notify_tid;
		for (; !choose && next < t->id; next++) {
			create_timer(b, CLOCK_MONOTONIC, &nothing, next);
			batch_call(b, "delete timer", SYS_timer_delete, ARG(next));
		}
		create_timer(b, t->clock, &sev, t->id);
		next = t->id + 1;
	}
	if (choose)
		batch_call(b, "end choosing timer numbers", SYS_prctl, ARG(PR_TIMER_CREATE_RESTORE_IDS),
			   ARG(PR_TIMER_CREATE_RESTORE_IDS_OFF), ARG(0), ARG(0), ARG(0));
}

static int timers_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
			struct batch *b, struct error *e)
{
	const Ferry__Timers *m = (const Ferry__Timers *)msg;
	int err = timers_check(r, p->pid, 0, msg, e);

	(void)t;
	if (err < 0)
		return err;
	if (m->n_posix)
		create_timers(b, m);
	for (size_t i = 0; i < m->n_posix; i++) {
		const Ferry__PosixTimer *x = m->posix[i];
		struct itimerspec v = {
			.it_value = {x->value_ns / NSEC_PER_SEC, x->value_ns % NSEC_PER_SEC},
			.it_interval = {x->interval_ns / NSEC_PER_SEC, x->interval_ns % NSEC_PER_SEC},
		};

		if (x->value_ns)
			batch_call(b, "arm timer", SYS_timer_settime, ARG(x->id), ARG(0),
				   ARG_PUT(b, &v, sizeof(v)), ARG(0));
	}
	for (size_t i = 0; i < m->n_interval; i++) {
		const Ferry__IntervalTimer *x = m->interval[i];
		struct itimerval v = {
			.it_value = {x->value_us / USEC_PER_SEC, x->value_us % USEC_PER_SEC},
			.it_interval = {x->interval_us / USEC_PER_SEC, x->interval_us % USEC_PER_SEC},
		};

		if (x->value_us)
			batch_call(b, "arm interval timer", SYS_setitimer, ARG(i), ARG_PUT(b, &v, sizeof(v)),
				   ARG(0));
	}
	return 0;
}

const struct state_kind kind_timers = {
	.name = "task/timers",
	.type = FERRY__RECORD_TYPE__RECORD_TIMERS,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__timers__descriptor,
	.preflight = timers_preflight,
	.ask = timers_ask,
	.take = timers_take,
	.check = timers_check,
	.build = timers_build,
};
