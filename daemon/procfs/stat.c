/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stat is "pid (comm) state numbers...".  The comm is not escaped: it may hold blanks, newlines and ')'. What
 * follows it never holds a ')', so the last one ends it.
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

/* Field numbers as in proc(5). */
enum {
	F_PPID = 4,
	F_PGRP,
	F_SESSION,
	F_TTY,
	F_TPGID,
	F_FLAGS,
	F_MAJFLT = 12,
	F_UTIME = 14,
	F_STIME,
	F_PRIORITY = 18,
	F_NICE,
	F_THREADS,
	F_START_TIME = 22,
	F_START_CODE = 26,
	F_END_CODE,
	F_START_STACK,
	F_EXIT_SIGNAL = 38,
	F_RT_PRIORITY = 40,
	F_POLICY,
	F_START_DATA = 45,
	F_END_DATA,
	F_START_BRK,
	F_ARG_START,
	F_ARG_END,
	F_ENV_START,
	F_ENV_END,
	F_EXIT_CODE,
	F_COUNT,
};

/* Negative numbers are kept in two's complement. */
static bool numbers(const char *p, uint64_t *f)
{
	for (int i = F_PPID; i < F_COUNT; i++) {
		if (*p++ != ' ')
			return false;
		bool minus = *p == '-';

		p += minus;
		if (!text_u64(&p, 10, &f[i]))
			return false;
		if (minus)
			f[i] = -f[i];
	}
	return *p == ' ' || *p == '\n' || *p == 0;
}

int proc_stat_parse(const char *text, struct proc_stat *ret, struct error *e)
{
	const char *p = text, *end = strrchr(text, ')');
	uint64_t pid, f[F_COUNT];

	if (!text_u64(&p, 10, &pid) || !text_skip(&p, " (") || !end || end < p || end[1] != ' ' || !end[2] ||
	    !numbers(end + 3, f))
		return error_say(e, EINVAL, "a stat line of /proc is malformed: %.80s", text);
	struct proc_stat s = {
		.pid = pid,
		.state = end[2],
		.ppid = f[F_PPID],
		.pgrp = f[F_PGRP],
		.session = f[F_SESSION],
		.tty_nr = f[F_TTY],
		.tpgid = f[F_TPGID],
		.flags = f[F_FLAGS],
		.num_threads = f[F_THREADS],
		.major_faults = f[F_MAJFLT],
		.cpu_ticks = f[F_UTIME] + f[F_STIME],
		.start_time = f[F_START_TIME],
		.start_code = f[F_START_CODE],
		.end_code = f[F_END_CODE],
		.start_stack = f[F_START_STACK],
		.exit_signal = f[F_EXIT_SIGNAL],
		.start_data = f[F_START_DATA],
		.end_data = f[F_END_DATA],
		.start_brk = f[F_START_BRK],
		.arg_start = f[F_ARG_START],
		.arg_end = f[F_ARG_END],
		.env_start = f[F_ENV_START],
		.env_end = f[F_ENV_END],
		.exit_code = f[F_EXIT_CODE],
		.nice = f[F_NICE],
		.priority = f[F_PRIORITY],
		.rt_priority = f[F_RT_PRIORITY],
		.policy = f[F_POLICY],
	};

	memcpy(s.comm, p, MIN((size_t)(end - p), sizeof(s.comm) - 1));
	*ret = s;
	return 0;
}

int proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *ret, struct error *e)
{
	cleanup_free char *text = NULL;
	int r = proc_file_read(pid, tid, "stat", &text, e);

	if (r < 0)
		return r;
	r = proc_stat_parse(text, ret, e);
	return r < 0 ? error_prefix(e, "process %d", pid) : 0;
}
