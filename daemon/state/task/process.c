/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What belongs to a process as a whole: oom_score_adj, child subreaper, core dump filter, membarrier
 * registrations, and the nice value of a session's autogroup.  (Limits, timers
 * and signal actions have files of their own; the dumpable flag is with the credentials.)  And the refusal of
 * what has no other place: a process that is being traced, or has a controlling terminal.
 *
 * Two of them are files of /proc that anyone privileged may write: that is done from outside, while the batch
 * is put together.
 */
#include "state/task/task.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"

#define GET_REGISTRATIONS (1 << 9) /* Linux 6.3 */

/* Command that is refused (EPERM) to who has not registered for it; done, it changes nothing. */
static const struct {
	int command, registration;
} barriers[] = {
	{MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED},
	{MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE},
	{MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ},
};

struct process_asked {
	size_t subreaper; /* data */
	unsigned registrations, tried[ARRAY_SIZE(barriers)];
};

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
	int r = proc_status_read(process_living(p), 0, &status, e);

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
	struct process_asked *a = *ret_state = xcalloc(1, sizeof(*a));

	(void)c;
	(void)p;
	(void)t;
	(void)e;
	a->subreaper = batch_reserve(b, sizeof(int));
	batch_call(b, "get child subreaper", SYS_prctl, ARG(PR_GET_CHILD_SUBREAPER), ARG_DATA(a->subreaper));
	a->registrations = batch_call(b, "get membarrier registrations", SYS_membarrier,
				      ARG(GET_REGISTRATIONS), ARG(0), ARG(0));
	batch_accept_any(b, a->registrations);
	for (size_t i = 0; i < ARRAY_SIZE(barriers); i++) {
		a->tried[i] = batch_call(b, "try membarrier", SYS_membarrier, ARG(barriers[i].command),
					 ARG(0), ARG(0));
		batch_accept_any(b, a->tried[i]);
	}
	return 0;
}

static uint32_t registrations(const struct batch *b, const struct process_asked *a)
{
	int64_t told = batch_result(b, a->registrations);
	uint32_t all = told > 0 ? (uint32_t)told : 0;

	for (size_t i = 0; i < ARRAY_SIZE(barriers); i++)
		if (batch_result(b, a->tried[i]) == 0)
			all |= (uint32_t)barriers[i].registration;
	return all;
}

/* "/autogroup-12 nice 5"; 0 where there are none. */
static int read_autogroup(pid_t pid)
{
	char path[64];
	cleanup_free char *text = NULL;
	int nice = 0;

	snprintf(path, sizeof(path), "/proc/%d/autogroup", pid);
	return read_file(path, &text) > 0 && sscanf(text, "/autogroup-%*d nice %d", &nice) == 1 ? nice : 0;
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
	has_filter = read_number(process_living(p), "coredump_filter", 16, &filter, &ignored) == 0;
	const struct process_asked *a = state;

	memcpy(&subreaper, batch_data(b, a->subreaper), sizeof(subreaper));

	Ferry__ProcessState *m = MESSAGE_NEW(Ferry__ProcessState, ferry__process_state);

	m->oom_score_adj = oom;
	m->child_subreaper = subreaper != 0;
	m->coredump_filter = filter;
	m->has_coredump_filter = has_filter;
	m->membarrier = registrations(b, a);
	if (p->sid == p->pid)
		m->autogroup_nice = read_autogroup(p->pid);
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
	struct error here = ERROR_INIT;
	int err = set_if_other(p->pid, "oom_score_adj", 10, "%ld", m->oom_score_adj, e);

	(void)t;
	if (err == 0 && m->has_coredump_filter)
		err = set_if_other(p->pid, "coredump_filter", 16, "0x%lx", m->coredump_filter, e);
	if (err == 0 && m->autogroup_nice && read_autogroup(p->pid) != m->autogroup_nice)
		if (write_number(p->pid, "autogroup", "%ld", m->autogroup_nice, &here) < 0)
			events_log(r->events, 2, "pid %d: the nice value %ld of its autogroup is lost: %s",
				   p->pid, (long)m->autogroup_nice, here.text);
	if (err < 0)
		return err;
	for (uint32_t bit = 1; bit && bit <= m->membarrier; bit <<= 1)
		if (m->membarrier & bit)
			batch_call(b, "register for membarrier", SYS_membarrier, ARG(bit), ARG(0), ARG(0));
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
