/* SPDX-License-Identifier: Apache-2.0 */
/* Who is not root has ferryd do it, if that lets him: service/errands.h. */
#include "cli/errand.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/util.h"
#include "service/msg.h"
#include "service/rundir.h"

static int asking = -1;

/* Nothing more will be asked: that is to cancel. The end is still waited for. */
static void on_signal(int sig)
{
	(void)sig;
	shutdown(asking, SHUT_WR);
}

int errand_connect(const struct cli *c)
{
	cleanup_free char *path = xasprintf("%s/ferryd.sock", rundir_path());
	struct stat st;

	if (geteuid() == 0 || !(c->verb->bit & (VERB_MIGRATE | VERB_DUMP | VERB_STATUS | VERB_CANCEL)) ||
	    stat(path, &st) < 0 || st.st_uid == geteuid())
		return -1;
	return rundir_connect(path, false);
}

/* Where the image goes is handed over as a descriptor. */
static void add(void *ctx, const struct opt *o, const char *value)
{
	if (strcmp(o->name, "images-dir") != 0) {
		cleanup_free char *text =
			value ? xasprintf("--%s=%s", o->name, value) : xasprintf("--%s", o->name);

		json_array_append_new(ctx, json_string(text));
	}
}

static json_t *question(const struct cli *c, int argc, char **argv)
{
	json_t *args = json_array();

	json_array_append_new(args, json_string(c->verb->name));
	options_each(&cli_table, argc, argv, add, args);
	for (int i = 0; i < c->argc; i++)
		json_array_append_new(args, json_string(c->argv[i]));
	return json_pack("{s:s,s:o}", "op", "run", "args", args);
}

int errand_run(const struct cli *c, int sock, int argc, char **argv, struct error *e)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	int fds[3] = {1, 2, -1}, r = 0;
	size_t n = 2;
	json_t *m = question(c, argc, argv), *answer = NULL;
	cleanup_close int dir = -1;

	if (c->verb->bit == VERB_DUMP) {
		dir = fds[n++] = open(c->o.images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			r = error_set(e, errno, "cannot open the images directory %s", c->o.images_dir);
	}
	fflush(stdout);
	asking = sock;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	if (r == 0)
		r = msg_send(sock, m, fds, n, false);
	json_decref(m);
	if (r < 0)
		return error_is(e) ? r : error_set(e, -r, "ask ferryd");
	r = msg_recv(sock, &answer, NULL);
	if (r != 1)
		return error_say(e, EPIPE, "ferryd ended the connection: it knows no errands, or has ended");
	const char *refused = msg_str(answer, "refused", "");

	r = *refused ? error_say(e, EPERM, "%s", refused) : (int)msg_int(answer, "exit", 1);
	json_decref(answer);
	return r;
}
