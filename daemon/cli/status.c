/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"
#include "migrate/journal.h"
#include "procfs/owner.h"
#include "service/msg.h"
#include "service/rundir.h"

#define WATCH_MS 1000

struct list {
	json_t *jobs; /* array */
	json_t *busy; /* object: targets with a job, so that their keeper is no second row */
};

static json_t *ask(int sock)
{
	json_t *q = json_pack("{s:s}", "op", "status"), *answer = NULL;

	if (msg_send(sock, q, NULL, 0, false) < 0 || msg_recv(sock, &answer, NULL) != 1)
		answer = NULL;
	json_decref(q);
	return answer;
}

static int add(void *ctx, const char *path, int sock)
{
	struct list *l = ctx;
	json_t *j = ask(sock);
	char key[16];

	if (!j)
		return 0;
	snprintf(key, sizeof(key), "%d", (int)msg_int(j, "target", 0));
	if (strstr(path, "/keepers/") && json_object_get(l->busy, key)) {
		json_decref(j);
		return 0;
	}
	json_object_set_new(l->busy, key, json_true());
	json_array_append_new(l->jobs, j);
	return 0;
}

/* What ferryd receives. */
static void add_daemon(struct list *l)
{
	cleanup_free char *path = xasprintf("%s/ferryd.sock", rundir_path());
	cleanup_close int sock = rundir_connect(path, true);
	json_t *answer = sock < 0 ? NULL : ask(sock), *j;
	size_t i;

	json_array_foreach(json_object_get(answer, "jobs"), i, j) json_array_append(l->jobs, j);
	json_decref(answer);
}

/* Migrations that nobody is at work on, though they have not come to an end. */
static int add_left(void *ctx, const char *dir, const char *uuid)
{
	struct list *l = ctx;
	struct error ignore = ERROR_INIT;
	struct journal *j;
	char key[16];

	if (journal_open(&j, dir, SIDE_SOURCE, uuid, &ignore) < 0)
		return 0;
	snprintf(key, sizeof(key), "%d", j->n_procs ? j->procs[0].pid : 0);
	if (j->fd >= 0 && j->state >= SOURCE_COMMITTING && !json_object_get(l->busy, key))
		json_array_append_new(l->jobs,
				      json_pack("{s:s,s:i,s:s,s:s,s:s,s:s*,s:f}", "verb", "migrate", "target",
						atoi(key), "phase",
						j->state == SOURCE_SERVING ? "serving" : "in doubt", "uuid",
						uuid, "state", migration_state_name(j->state), "to", j->to,
						"seconds", difftime(time(NULL), (time_t)j->time)));
	journal_free(j);
	return 0;
}

static void print(const json_t *j)
{
	double percent = msg_num(j, "percent", -1);
	char bytes[32], time[32], done[16] = "-";

	if (percent >= 0)
		snprintf(done, sizeof(done), "%.0f%%", percent);
	printf("%-8d %-8.8s %-10s %-10s %6s %7d %10s %9s\n", (int)msg_int(j, "target", 0),
	       msg_str(j, "uuid", "-"), msg_str(j, "verb", "?"), msg_str(j, "phase", "?"), done,
	       (int)msg_int(j, "rounds", 0), display_bytes(msg_num(j, "bytes", 0), bytes),
	       display_ms(msg_num(j, "seconds", 0) * 1000, time));
	const json_t *fetch = json_object_get(j, "fetch");
	const char *peer = msg_str(j, "peer", "");

	if (*peer)
		printf("         from %s\n", peer);
	if (msg_int(j, "position", 0))
		printf("         number %lld in the queue of the destination\n",
		       (long long)msg_int(j, "position", 0));
	if (fetch)
		printf("         %lld pages of %lld are still on their way%s; %lld faults, p50 %.2f ms, p99 "
		       "%.2f ms, max "
		       "%.2f ms\n",
		       (long long)msg_int(fetch, "left", 0), (long long)msg_int(fetch, "total", 0),
		       json_is_true(json_object_get(fetch, "link"))
			       ? ""
			       : ", and the link is broken: threads wait",
		       (long long)msg_int(fetch, "faults", 0), msg_num(fetch, "p50_us", 0) / 1000,
		       msg_num(fetch, "p99_us", 0) / 1000, msg_num(fetch, "max_us", 0) / 1000);
	if (!strcmp(msg_str(j, "state", ""), "serving"))
		printf("         the program runs at %s, pages of it are still here, in its stopped copy, "
		       "and nobody "
		       "serves them; ferry resume %s\n",
		       msg_str(j, "to", "?"), msg_str(j, "uuid", ""));
	else if (json_object_get(j, "state"))
		printf("         the program may run at %s: its copy here stands still until that is known; "
		       "ferry resume %s\n",
		       msg_str(j, "to", "?"), msg_str(j, "uuid", ""));
}

/* Others' are none of his business. */
static void keep_own(struct list *l, uid_t owner)
{
	for (size_t i = json_array_size(l->jobs); i-- > 0;) {
		pid_t target = (pid_t)msg_int(json_array_get(l->jobs, i), "target", 0);
		struct error no = ERROR_INIT;

		if (target <= 0 || proc_owner_check(target, owner, &no) < 0)
			json_array_remove(l->jobs, i);
	}
}

static struct list look(const struct cli *c)
{
	struct list l = {json_array(), json_object()};

	rundir_each("jobs", 0, add, &l);
	rundir_each("keepers", 0, add, &l);
	add_daemon(&l);
	journal_each(rundir_path(), SIDE_SOURCE, add_left, &l);
	if (c->o.owner >= 0)
		keep_own(&l, (uid_t)c->o.owner);
	return l;
}

static void show(const struct cli *c, const struct list *l)
{
	json_t *j;
	size_t i;

	if (!c->o.json && json_array_size(l->jobs))
		printf("%-8s %-8s %-10s %-10s %6s %7s %10s %9s\n", "TARGET", "ID", "VERB", "PHASE", "DONE",
		       "ROUNDS", "COPIED", "SINCE");
	json_array_foreach(l->jobs, i, j)
	{
		if (c->o.json) {
			json_dumpf(j, stdout, JSON_COMPACT);
			putchar('\n');
		} else {
			print(j);
		}
	}
	if (!c->o.json && c->o.watch && !json_array_size(l->jobs))
		puts("no jobs");
	fflush(stdout);
}

static void stop(int sig)
{
	(void)sig;
	job_abort();
}

/* @terminal: each look over the last one; else one behind the other. */
static void watch(const struct cli *c, bool terminal)
{
	const struct sigaction sa = {.sa_handler = stop};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	while (!job_aborted() && !ferror(stdout)) {
		struct list l = look(c);

		if (terminal)
			fputs("\033[H\033[J", stdout);
		show(c, &l);
		json_decref(l.jobs);
		json_decref(l.busy);
		usleep(WATCH_MS * 1000);
	}
}

int verb_status(struct cli *c, struct error *e)
{
	if (c->argc)
		return error_say(e, EINVAL, "status takes no operands");
	if (c->o.watch) {
		watch(c, !c->o.json && isatty(STDOUT_FILENO));
		return 0;
	}
	struct list l = look(c);

	show(c, &l);
	json_decref(l.jobs);
	json_decref(l.busy);
	return 0;
}
