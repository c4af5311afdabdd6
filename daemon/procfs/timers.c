/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/timers: four lines per POSIX timer ("ID: 0", "signal: 60/00007fff86e452a8", "notify:
 * signal/pid.2634", "ClockID: 1"), in no order. */
#include <errno.h>
#include <limits.h>
#include <signal.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

static bool number(const char **p, int *ret)
{
	int64_t v;

	if (!text_i64(p, &v) || v < INT_MIN || v > INT_MAX)
		return false;
	*ret = v;
	return true;
}

static bool end_of_line(const char **p)
{
	if (**p == 0)
		return true;
	return text_skip(p, "\n");
}

static bool notify(const char **p, struct proc_timer *t)
{
	if (text_skip(p, "signal/"))
		t->notify = SIGEV_SIGNAL;
	else if (text_skip(p, "none/"))
		t->notify = SIGEV_NONE;
	else if (text_skip(p, "thread/"))
		t->notify = SIGEV_THREAD;
	else
		return false;
	if (text_skip(p, "tid."))
		t->notify |= SIGEV_THREAD_ID;
	else if (!text_skip(p, "pid."))
		return false;
	return number(p, &t->notify_tid);
}

static bool timer(const char **p, struct proc_timer *t)
{
	return text_skip(p, "ID: ") && number(p, &t->id) && end_of_line(p) && text_skip(p, "signal: ") &&
	       number(p, &t->signal) && text_skip(p, "/") && text_u64(p, 16, &t->sigev_value) &&
	       end_of_line(p) && text_skip(p, "notify: ") && notify(p, t) && end_of_line(p) &&
	       text_skip(p, "ClockID: ") && number(p, &t->clock) && end_of_line(p);
}

int proc_timers_parse(const char *text, struct proc_timer **ret, size_t *ret_n, struct error *e)
{
	cleanup_free struct proc_timer *v = NULL;
	size_t n = 0, cap = 0;

	for (const char *p = text; *p;) {
		struct proc_timer t = {0};
		const char *start = p;

		if (!timer(&p, &t))
			return error_say(e, EINVAL, "a timers file of /proc is malformed: %.80s", start);
		if (n == cap) {
			cap = cap ? cap * 2 : 8;
			v = xrealloc(v, cap * sizeof(*v));
		}
		v[n++] = t;
	}
	*ret = v ? TAKE_PTR(v) : xcalloc(1, sizeof(*v));
	*ret_n = n;
	return 0;
}

int proc_timers_read(pid_t pid, struct proc_timer **ret, size_t *ret_n, struct error *e)
{
	cleanup_free char *text = NULL;
	int r = proc_file_read(pid, 0, "timers", &text, e);

	if (r < 0)
		return r;
	r = proc_timers_parse(text, ret, ret_n, e);
	return r < 0 ? error_prefix(e, "process %d", pid) : 0;
}
