/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of a journal: those that still are what they were when they were written down. And the
 * addresses that move with them. */
#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "base/util.h"
#include "freeze/tcp_repair.h"
#include "migrate/journal.h"
#include "procfs/procfs.h"
#include "state/sockets/address.h"

/* Alive and the one that was meant; its state as in /proc. 0: no. */
static char state_of(const struct journal_process *p)
{
	struct proc_stat st;
	struct error ignore = ERROR_INIT;

	if (!p->start || proc_stat_read(p->pid, 0, &st, &ignore) < 0 || st.start_time != p->start)
		return 0;
	/* Its first thread may have ended before others. */
	pid_t living = proc_living(p->pid);

	if (living != p->pid && proc_stat_read(p->pid, living, &st, &ignore) < 0)
		return 0;
	return st.state == 'Z' || st.state == 'X' ? 0 : st.state;
}

size_t journal_alive(const struct journal *j)
{
	size_t n = 0;

	for (size_t i = 0; i < j->n_procs; i++)
		n += state_of(&j->procs[i]) != 0;
	return n;
}

int journal_kill(const struct journal *j, struct error *e)
{
	cleanup_free int *fds = xcalloc(j->n_procs + 1, sizeof(int));
	int r = 0;

	/* The descriptor first, then the look: so it is of the process that was meant. */
	for (size_t i = 0; i < j->n_procs; i++) {
		fds[i] = sys_pidfd_open(j->procs[i].pid, 0);
		if (fds[i] >= 0 && state_of(&j->procs[i]))
			(void)sys_pidfd_send_signal(fds[i], SIGKILL);
		else if (fds[i] >= 0)
			close(TAKE_FD(fds[i]));
	}
	for (size_t i = 0; i < j->n_procs; i++) {
		struct pollfd p = {.fd = fds[i], .events = POLLIN};

		if (fds[i] < 0)
			continue;
		if (poll(&p, 1, 10000) != 1 && r == 0)
			r = error_say(e, ETIMEDOUT, "pid %d did not end when killed", j->procs[i].pid);
		close(fds[i]);
	}
	return r;
}

/* A SIGCONT to all that should run, whether or not they are seen to be stopped: a process that died lets go
 * of its files before it lets go of whom it traces, and we may come in between. The stop may not have been
 * met yet, or have been met and not been told to the tracer, who would have thrown it away: then it shows
 * nowhere, and comes when the tracer is gone. The SIGCONT does away with it in each of these cases. */
void journal_let_go(const struct journal *j)
{
	for (size_t i = 0; i < j->n_procs; i++) {
		const struct journal_process *p = &j->procs[i];

		if (!state_of(p))
			continue;
		tcp_repair_end(p->pid, j->side == SIDE_DESTINATION);
		if (p->runs)
			kill(p->pid, SIGCONT);
	}
}

int journal_drop_addresses(const struct journal *j, struct error *e)
{
	int first = 0;

	for (size_t i = 0; i < j->n_addresses; i++) {
		int r = address_drop_text(j->addresses[i].local, e);

		first = first < 0 ? first : r;
	}
	return first;
}

int journal_take_addresses(const struct journal *j, struct error *e)
{
	int first = 0;

	for (size_t i = 0; i < j->n_addresses; i++) {
		int r = address_take_text(j->addresses[i].local, j->addresses[i].peer, e);

		first = first < 0 ? first : r;
	}
	return first;
}
