/* SPDX-License-Identifier: Apache-2.0 */
#include "service/errands.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "service/msg.h"
#include "service/peers.h"
#include "service/rundir.h"

static void end(struct errand *r)
{
	if (r->sock >= 0)
		close(r->sock);
	*r = (struct errand){.sock = -1};
}

static void say(struct errand *r, json_t *m)
{
	msg_send(r->sock, m, NULL, 0, true);
	json_decref(m);
}

static void refuse(struct daemon *d, struct errand *r, const struct error *e)
{
	daemon_say(d, 2, "user %u: %s", r->uid, e->text);
	say(r, json_pack("{s:s}", "refused", e->text));
	end(r);
}

void errands_add(struct daemon *d, int sock, uid_t uid)
{
	struct errand *r = NULL;

	for (size_t i = 0; i < ERRANDS_MAX; i++) {
		struct errand *q = &d->errands[i];

		if (q->sock < 0 && !q->pid) {
			r = q;
			break;
		}
		/* Else the one that says nothing for the longest time. */
		if (q->sock >= 0 && !q->pid && (!r || q->since < r->since))
			r = q;
	}
	if (!r) {
		close(sock);
		return;
	}
	end(r);
	fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) | O_NONBLOCK);
	*r = (struct errand){.sock = sock, .uid = uid, .since = now_ns()};
}

/* --- the call --------------------------------------------------------------------------------------- */

/* An image lies in a directory of his own: it is made by root. */
static int check_directory(int fd, uid_t uid, struct error *e)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
		return error_say(e, EINVAL, "no directory for the image");
	if (st.st_uid != uid)
		return error_say(e, EPERM,
				 "the images directory must belong to who asks for the dump (user %u)", uid);
	return 0;
}

static void become(const char *program, char **args, const int *fds)
{
	char *argv[ERRAND_ARGS + 8] = {(char *)"ferry"};
	cleanup_free char *run_dir = xasprintf("FERRY_RUN_DIR=%s", rundir_path());
	char *env[] = {(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", run_dir,
		       NULL};
	int null = open("/dev/null", O_RDONLY);
	sigset_t none;

	setsid();
	if (null < 0 || (fds[2] >= 0 ? fchdir(fds[2]) : chdir("/")) < 0 || dup2(null, 0) < 0 ||
	    dup2(fds[0], 1) < 0 || dup2(fds[1], 2) < 0)
		_exit(126);
	close_range(3, ~0u, 0);
	for (size_t i = 0; args[i]; i++)
		argv[i + 1] = args[i];
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(program, argv, env);
	_exit(127);
}

static int start(struct daemon *d, struct errand *r, const json_t *list, const int *fds, struct error *e)
{
	char program[PATH_MAX + 8];
	ssize_t n = readlink("/proc/self/exe", program, PATH_MAX - 1);
	unsigned of_user = 0;

	if (n <= 0)
		return error_set(e, errno, "find ferry");
	program[n] = 0;
	strcpy(strrchr(program, '/') + 1, "ferry");
	for (size_t i = 0; i < ERRANDS_MAX; i++)
		of_user += d->errands[i].pid && d->errands[i].uid == r->uid;
	if (of_user >= ERRANDS_OF_USER)
		return error_say(e, EBUSY, "ferryd is at work for user %u %u times already", r->uid, of_user);
	if (d->ending)
		return error_say(e, ECANCELED, "ferryd ends");
	char **args = errand_args(list, r->uid, d->o->serve_options.link.keys_dir, d->o->libdir, e);

	if (!args)
		return -e->code;
	bool dump = !strcmp(args[0], "dump");
	const int given[3] = {fds[0], fds[1], dump ? fds[2] : -1};
	int x = fds[0] < 0 || fds[1] < 0 ? error_say(e, EINVAL, "nowhere to write to")
		: dump                   ? check_directory(fds[2], r->uid, e)
					 : 0;

	if (x == 0) {
		r->pid = fork();
		if (r->pid == 0)
			become(program, args, given);
		if (r->pid < 0) {
			r->pid = 0;
			x = error_set(e, errno, "fork");
		}
	}
	if (x == 0)
		daemon_say(d, 3, "user %u: ferry %s, process %d", r->uid, args[0], r->pid);
	errand_args_free(args);
	return x;
}

static void hear(struct daemon *d, struct errand *r)
{
	struct error e = ERROR_INIT;
	int fds[MSG_MAX_FDS];
	json_t *m = NULL;
	int n = msg_recv(r->sock, &m, fds);

	if (n == -EAGAIN)
		return;
	if (n != 1) { /* gone, or of no sense */
		if (r->pid)
			kill(r->pid, SIGTERM);
		/* It hears of the end, if it only stopped asking. */
		shutdown(r->sock, SHUT_RD);
		if (!r->pid)
			end(r);
		else
			r->since = 0;
		return;
	}
	int x = r->pid ? error_say(&e, EPROTO, "one request for each connection")
		: strcmp(msg_str(m, "op", ""), "run")
			? error_say(&e, EPERM, "user %u may only run errands", r->uid)
			: start(d, r, json_object_get(m, "args"), fds, &e);

	if (x < 0 && !r->pid)
		refuse(d, r, &e);
	json_decref(m);
	msg_close_fds(fds);
}

size_t errands_poll(const struct daemon *d, struct pollfd *p)
{
	for (size_t i = 0; i < ERRANDS_MAX; i++)
		p[i] = (struct pollfd){d->errands[i].since ? d->errands[i].sock : -1, POLLIN, 0};
	return ERRANDS_MAX;
}

void errands_handle(struct daemon *d, const struct pollfd *p)
{
	for (size_t i = 0; i < ERRANDS_MAX; i++)
		if (p[i].revents && d->errands[i].sock == p[i].fd)
			hear(d, &d->errands[i]);
}

bool errands_reaped(struct daemon *d, pid_t pid, int status)
{
	for (size_t i = 0; i < ERRANDS_MAX; i++) {
		struct errand *r = &d->errands[i];

		if (r->pid != pid)
			continue;
		int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

		if (r->sock >= 0)
			say(r, json_pack("{s:i}", "exit", code));
		end(r);
		return true;
	}
	return false;
}

void errands_cancel(struct daemon *d)
{
	for (size_t i = 0; i < ERRANDS_MAX; i++)
		if (d->errands[i].pid)
			kill(d->errands[i].pid, SIGTERM);
}
