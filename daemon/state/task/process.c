/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What belongs to a process as a whole: oom_score_adj, child subreaper, core dump filter.  (Limits, timers
 * and signal actions have files of their own; the dumpable flag is with the credentials.)  And the refusal of
 * what has no other place: a process that is being traced, or has a controlling terminal.
 *
 * Two of them are files of /proc that anyone privileged may write: that is done from outside, while the batch
 * is put together.
 */
#include "state/task/task.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"

static bool is_own_thread(pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d", tid);
	return access(path, F_OK) == 0;
}

static int process_preflight(struct capture *c, struct process *p, struct error *e)
{
	struct proc_status status;
	pid_t tracer;
	int r = proc_status_read(p->pid, 0, &status, e);

	(void)c;
	if (r < 0)
		return r;
	tracer = status.tracer;
	proc_status_deinit(&status);
	if (tracer && !is_own_thread(tracer))
		return error_say(e, EBUSY, "pid %d: is being traced by pid %d", p->pid, tracer);
	return 0;
}

static int process_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b,
		       void **ret_state, struct error *e)
{
	size_t *at = xmalloc(sizeof(*at));

	(void)c;
	(void)p;
	(void)t;
	(void)e;
	*at = batch_reserve(b, sizeof(int));
	batch_call(b, "get child subreaper", SYS_prctl, ARG(PR_GET_CHILD_SUBREAPER), ARG_DATA(*at));
	*ret_state = at;
	return 0;
}

static int read_number(pid_t pid, const char *file, int base, long *ret, struct error *e)
{
	char path[64], *end;
	cleanup_free char *text = NULL;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	n = read_file(path, &text);
	if (n < 0)
		return error_set(e, -n, "read %s", path);
	*ret = strtol(text, &end, base);
	return end == text ? error_say(e, EINVAL, "%s does not hold a number", path) : 0;
}

static int write_number(pid_t pid, const char *file, const char *format, long value, struct error *e)
{
	char path[64], text[32];
	int n, r;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "open %s", path);
	n = snprintf(text, sizeof(text), format, value);
	r = write_full(fd, text, n);
	return r < 0 ? error_set(e, -r, "write %s to %s", text, path) : 0;
}

static int process_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
			struct error *e)
{
	struct error ignored = ERROR_INIT;
	long oom, filter = 0;
	bool has_filter;
	int r, subreaper;

	(void)t;
	r = read_number(p->pid, "oom_score_adj", 10, &oom, e);
	if (r < 0)
		return r;
	has_filter = read_number(p->pid, "coredump_filter", 16, &filter, &ignored) == 0;
	memcpy(&subreaper, batch_data(b, *(size_t *)state), sizeof(subreaper));

	Ferry__ProcessState *m = MESSAGE_NEW(Ferry__ProcessState, ferry__process_state);

	m->oom_score_adj = oom;
	m->child_subreaper = subreaper != 0;
	m->coredump_filter = filter;
	m->has_coredump_filter = has_filter;
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_PROCESS, p->pid, 0, &m->base);
	return 0;
}

static int set_if_other(pid_t pid, const char *file, int base, const char *format, long wanted,
			struct error *e)
{
	long now = 0;
	int r = read_number(pid, file, base, &now, e);

	if (r < 0 || now == wanted)
		return r;
	return write_number(pid, file, format, wanted, e);
}

static int process_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
			 struct batch *b, struct error *e)
{
	const Ferry__ProcessState *m = (const Ferry__ProcessState *)msg;
	int err = set_if_other(p->pid, "oom_score_adj", 10, "%ld", m->oom_score_adj, e);

	(void)r;
	(void)t;
	if (err == 0 && m->has_coredump_filter)
		err = set_if_other(p->pid, "coredump_filter", 16, "0x%lx", m->coredump_filter, e);
	if (err < 0)
		return err;
	batch_call(b, "set child subreaper", SYS_prctl, ARG(PR_SET_CHILD_SUBREAPER), ARG(m->child_subreaper));
	return 0;
}

const struct state_kind kind_process = {
	.name = "task/process",
	.type = FERRY__RECORD_TYPE__RECORD_PROCESS,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__process_state__descriptor,
	.preflight = process_preflight,
	.ask = process_ask,
	.take = process_take,
	.build = process_build,
};
