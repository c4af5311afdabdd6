/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of ferryd on this machine: status, the end of a migration, metrics. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "service/job.h"
#include "service/msg.h"
#include "service/peers.h"
#include "service/rundir.h"

static json_t *status(const struct daemon *d)
{
	json_t *jobs = json_array();

	for (size_t i = 0; i < d->o->max_peers; i++) {
		if (d->peers[i].worker.pid <= 0)
			continue;
		json_t *j = status_json(&d->peers[i].status);

		json_object_set_new(j, "peer", json_string(d->peers[i].name));
		json_array_append_new(jobs, j);
	}
	return json_pack("{s:s,s:i,s:o}", "daemon", "ferryd", "pid", (int)getpid(), "jobs", jobs);
}

static bool is_named(const struct peer *p, const char *id)
{
	return p->worker.pid > 0 && strlen(id) >= 8 && !strncmp(p->status.uuid, id, strlen(id));
}

/* @m: what is no question of status. */
static void request(struct daemon *d, int sock, const json_t *m)
{
	const char *id = msg_str(m, "id", "");
	bool found = false;

	for (size_t i = 0; i < d->o->max_peers && !strcmp(msg_str(m, "op", ""), "cancel-migration"); i++)
		if (is_named(&d->peers[i], id)) {
			daemon_say_of(d, &d->peers[i], 2, "migration %s is cancelled here",
				      d->peers[i].status.uuid);
			worker_cancel(&d->peers[i].worker);
			found = true;
		}
	json_t *answer = json_pack("{s:b}", "cancelled", found);

	msg_send(sock, answer, NULL, 0, true);
	json_decref(answer);
}

void control_answer(struct daemon *d)
{
	int from = accept4(d->control, NULL, NULL, SOCK_CLOEXEC), sock = -1, fds[MSG_MAX_FDS];
	uid_t uid = 0;
	json_t *m = NULL;
	enum control_right right = from < 0 ? CONTROL_NONE : control_right(from, d->o->control_gid, &uid);

	if (right == CONTROL_OWN) {
		errands_add(d, from, uid);
		return;
	}
	if (right == CONTROL_NONE) {
		if (from >= 0) {
			daemon_say(d, 2, "user %u has no right to use the control socket", uid);
			close(from);
		}
		return;
	}
	if (job_answer_one(from, status(d), &sock, &m, fds) != 2)
		return;
	if (!strcmp(msg_str(m, "op", ""), "tell") && d->o->monitor)
		monitor_add_job(d->o->monitor, TAKE_FD(sock), m);
	else
		request(d, sock, m);
	json_decref(m);
	msg_close_fds(fds);
	if (sock >= 0)
		close(sock);
}

void control_monitor(struct daemon *d, const struct pollfd *p, size_t n)
{
	const struct job_status **own = xcalloc(d->o->max_peers, sizeof(*own));
	size_t n_own = 0;
	unsigned queued = 0;

	for (size_t i = 0; i < d->o->max_peers && n; i++) {
		const struct peer *peer = &d->peers[i];

		if (peer->worker.pid > 0 && peer->counted)
			own[n_own++] = &peer->status;
		queued += peer->worker.pid > 0 && peer->applicant.state == ADMISSION_QUEUED;
	}
	if (n)
		monitor_handle(d->o->monitor, p, n, own, n_own, queued);
	free(own);
}
