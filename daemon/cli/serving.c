/* SPDX-License-Identifier: Apache-2.0 */
/* What verbs that serve one session have in common. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "base/net.h"
#include "base/util.h"
#include "cli/cli.h"
#include "migrate/link.h"

char *cli_page_server(const struct cli *c)
{
	bool six = strchr(c->o.address, ':') && *c->o.address != '[';

	return xasprintf(six ? "[%s]:%d" : "%s:%d", c->o.address, (int)c->o.port);
}

int cli_link_options(const struct cli *c, struct link_options *ret, struct error *e)
{
	const struct link_files files = {c->o.tls_cacert, c->o.tls_cert, c->o.tls_key, c->o.tls_no_cn_verify};
	int given = !!files.ca + !!files.certificate + !!files.key;

	*ret = (struct link_options){.keys_dir = c->o.keys, .insecure = c->o.insecure, .tls = c->o.tls};
	if (!c->o.tls)
		return 0;
	if (c->o.insecure)
		return error_say(e, EINVAL, "--tls and --insecure exclude each other");
	if (given && given < 3)
		return error_say(
			e, EINVAL,
			"--tls-cacert, --tls-cert and --tls-key go together: all of them, or the keys in %s",
			c->o.keys);
	if (given)
		ret->files = files;
	return 0;
}

int cli_tell_ready(const struct cli *c, struct error *e)
{
	int64_t fd = c->o.status_fd;

	if (fd < 0)
		return 0;
	int r = write_full((int)fd, "", 1);

	close((int)fd);
	return r < 0 ? error_set(e, -r, "cannot write to --status-fd %d", (int)fd) : 0;
}

int cli_background(struct cli *c, struct error *e)
{
	fflush(NULL);
	pid_t pid = fork();

	if (pid < 0)
		return error_set(e, errno, "cannot go into the background");
	if (pid > 0) {
		int r = cli_write_pidfile(c, pid, e);

		if (r < 0) {
			kill(pid, SIGTERM);
			log_error(&c->log, e);
		}
		exit(r < 0);
	}
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	return 0;
}

int cli_listen(struct cli *c, struct error *e)
{
	char port[8];

	snprintf(port, sizeof(port), "%d", (int)c->o.port);
	int listener = net_listen(c->o.address, port, e);

	if (listener < 0)
		return listener;
	if (!c->o.port) {
		printf("PORT: %d\n", net_port(listener));
		fflush(stdout);
	}
	log_line(&c->log, 3, "listening at port %d", net_port(listener));
	return listener;
}
