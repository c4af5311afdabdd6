/* SPDX-License-Identifier: Apache-2.0 */
/* ferryd: where migrations arrive. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "base/net.h"
#include "base/util.h"
#include "migrate/recover.h"
#include "service/daemon.h"
#include "service/journald.h"
#include "service/manual.h"
#include "service/options.h"
#include "service/rundir.h"
#include "service/scope.h"

#define MAX_LISTEN     8
#define DEFAULT_CONFIG "/etc/ferry/ferryd.conf"

struct ferryd_options {
	struct opt_list listen;
	bool insecure, help, version, check_config;
	char *config, *libdir, *keys, *metrics, *control_group;
	uint64_t max_peer_memory;
	int64_t max_peer_processes;
	int64_t verbosity, max_peers, max_per_host, first_byte, max_migrations, max_queue;
};

#define AT(member) offsetof(struct ferryd_options, member)

static const struct opt rows[] = {
	{"listen", 0, OPT_LIST, 0, 0, AT(listen), "ADDR[:PORT]", NULL, 0, 0, NULL,
	 "where to wait for peers (default 127.0.0.1:" FERRY_PORT "); more than once"},
	{"insecure", 0, OPT_FLAG, 0, 0, AT(insecure), NULL, NULL, 0, 0, NULL,
	 "accept peers that do not encrypt from other machines too: no proof of who connects"},
	{"keys", 0, OPT_STRING, 0, 0, AT(keys), "DIR", KEYS_DIR, 0, 0, NULL,
	 "the host key and the peers that are trusted"},
	{"max-peers", 0, OPT_INT, 0, 0, AT(max_peers), "N", "64", 1, 500, "peers",
	 "serve so many at the same time"},
	{"max-per-host", 0, OPT_INT, 0, 0, AT(max_per_host), "N", "48", 1, 500, "peers",
	 "of them, so many from one address that is not loopback"},
	{"max-migrations", 0, OPT_INT, 0, 0, AT(max_migrations), "N", "8", 1, 500, "migrations",
	 "let so many arrive at the same time; more wait"},
	{"max-queue", 0, OPT_INT, 0, 0, AT(max_queue), "N", "32", 0, 500, "migrations",
	 "let so many wait; more are refused"},
	{"max-peer-memory", 0, OPT_SIZE, 0, 0, AT(max_peer_memory), "SIZE", NULL, 0, 0, "bytes, 0: any",
	 "let what comes from one peer at a time take so much memory here; what is larger is refused"},
	{"max-peer-processes", 0, OPT_INT, 0, 0, AT(max_peer_processes), "N", NULL, 0, 1 << 22,
	 "processes and threads, 0: any", "let what comes from one peer at a time have so many of them"},
	{"first-byte", 0, OPT_INT, 0, 0, AT(first_byte), "S", "10", 1, 3600, "s",
	 "drop a peer that says nothing for so long"},
	{"metrics", 0, OPT_STRING, 0, 0, AT(metrics), "WHERE", NULL, 0, 0, NULL,
	 "serve metrics for Prometheus there: a loopback ADDR:PORT, or the path of a unix socket"},
	{"control-group", 0, OPT_STRING, 0, 0, AT(control_group), "GROUP", NULL, 0, 0, NULL,
	 "members of this group may use the control socket, for processes of their own"},
	{"libdir", 'L', OPT_STRING, 0, 0, AT(libdir), "DIR", NULL, 0, 0, NULL,
	 "where parasite and backends are"},
	{"verbosity", 'v', OPT_LEVEL, 0, 0, AT(verbosity), "LEVEL", "3", 0, 4, NULL,
	 "1 errors, 2 warnings, 3 information, 4 debug"},
	{"config", 0, OPT_STRING, OPT_COMMAND, 0, AT(config), "FILE", NULL, 0, 0, NULL,
	 "read options from this file (default " DEFAULT_CONFIG ", if it is there)"},
	{"check-config", 0, OPT_FLAG, OPT_COMMAND, 0, AT(check_config), NULL, NULL, 0, 0, NULL,
	 "only see whether it could start with these options"},
	{"help", 'h', OPT_FLAG, OPT_COMMAND, 0, AT(help), NULL, NULL, 0, 0, NULL, "print this"},
	{"version", 'V', OPT_FLAG, OPT_COMMAND, 0, AT(version), NULL, NULL, 0, 0, NULL, "print the version"},
};
static const struct opt_table table = {rows, ARRAY_SIZE(rows), sizeof(struct ferryd_options)};

static void log_about(int level, const char *text, const struct log_about *about)
{
	if (!journald_is_stderr())
		fprintf(stderr, "ferryd: %s\n", text);
	else
		journald_write(level, text, about);
}

static void log_line(int level, const char *text)
{
	static const struct log_about nobody = {0};

	log_about(level, text, &nobody);
}

/* Beyond loopback a peer needs a key of ours to trust, unless --insecure. */
static int check_address(const struct ferryd_options *o, int sock, const char *name, struct error *e)
{
	struct keys *k = NULL;

	if (o->insecure || net_is_loopback(sock))
		return 0;
	int r = keys_load(o->keys, &k, e);

	keys_free(k);
	return r < 0 ? error_prefix(e, "%s is reached from other machines, and --insecure was not said", name)
		     : 0;
}

/* Sockets of systemd: those of peers into @ret, the control socket into *ret_control. */
static int given(const struct ferryd_options *o, int *ret, int *ret_control, struct error *e)
{
	int n = sd_listen_fds(1), peers = 0;

	if (n > MAX_LISTEN + 1)
		return error_say(e, EINVAL, "more than %d sockets to listen at", MAX_LISTEN);
	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++) {
		if (sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) > 0 && *ret_control < 0) {
			*ret_control = fd;
			continue;
		}
		if ((sd_is_socket(fd, AF_INET, SOCK_STREAM, 1) <= 0 &&
		     sd_is_socket(fd, AF_INET6, SOCK_STREAM, 1) <= 0) ||
		    peers == MAX_LISTEN)
			return error_say(e, EINVAL,
					 "socket %d of systemd is neither a listening TCP socket nor the one "
					 "control socket (SOCK_SEQPACKET)",
					 fd);
		if (check_address(o, fd, "the socket from systemd", e) < 0)
			return -e->code;
		ret[peers++] = fd;
	}
	return peers;
}

static int listeners(const struct ferryd_options *o, int *ret, struct error *e)
{
	static char *def[] = {"127.0.0.1"};
	const struct opt_list asked = o->listen.n ? o->listen : (struct opt_list){def, 1};

	if (asked.n > MAX_LISTEN)
		return error_say(e, EINVAL, "more than %d sockets to listen at", MAX_LISTEN);
	for (size_t i = 0; i < asked.n; i++) {
		cleanup_free char *host = NULL, *port = NULL;

		if (net_split(asked.v[i], NULL, FERRY_PORT, &host, &port, e) < 0)
			return -e->code;
		ret[i] = net_listen(host, port, e);
		if (ret[i] < 0 || check_address(o, ret[i], asked.v[i], e) < 0)
			return -e->code;
		cleanup_free char *text =
			xasprintf("listening at %s port %d", host ? host : "*", net_port(ret[i]));

		log_line(3, text);
	}
	return (int)asked.n;
}

/* -1: none was named. */
static int find_group(const struct ferryd_options *o, int64_t *ret, struct error *e)
{
	const struct group *g = o->control_group ? getgrnam(o->control_group) : NULL;

	*ret = g ? (int64_t)g->gr_gid : -1;
	return g || !o->control_group
		       ? 0
		       : error_say(e, ENOENT, "there is no group %s (--control-group)", o->control_group);
}

/* As far as it can be told beside a ferryd that runs: addresses are taken for a moment at a port of no
 * meaning. */
static int check_config(const struct ferryd_options *o, struct error *e)
{
	cleanup_free char *host = NULL, *port = NULL;
	int64_t gid;

	static char *def[] = {"127.0.0.1"};
	const struct opt_list asked = o->listen.n ? o->listen : (struct opt_list){def, 1};

	if (asked.n > MAX_LISTEN)
		return error_say(e, EINVAL, "more than %d sockets to listen at", MAX_LISTEN);
	for (size_t i = 0; i < asked.n; i++) {
		cleanup_free char *name = NULL, *unused = NULL;
		int r = net_split(asked.v[i], NULL, FERRY_PORT, &name, &unused, e);

		if (r < 0)
			return r;
		cleanup_close int sock = net_listen(name, "0", e);

		if (sock < 0)
			return -e->code;
		r = check_address(o, sock, asked.v[i], e);
		if (r < 0)
			return r;
	}
	if (find_group(o, &gid, e) < 0)
		return -e->code;
	if (o->metrics && *o->metrics != '/') {
		if (net_split(o->metrics, NULL, "0", &host, &port, e) < 0)
			return -e->code;
		cleanup_close int sock = net_listen(host, "0", e);

		if (sock < 0)
			return -e->code;
		if (!net_is_loopback(sock))
			return monitor_refuse(o->metrics, e);
	}
	puts("the configuration is good");
	return 0;
}

static int parse(int argc, char **argv, struct ferryd_options *o, struct error *e)
{
	int operand;

	options_init(&table, o);
	int r = options_parse_argv(&table, 0, "ferryd", argc, argv, o, &operand, e);

	if (r == 0) {
		cleanup_free char *file = xstrdup(o->config ? o->config : DEFAULT_CONFIG);
		bool given_by_name = o->config;

		options_deinit(&table, o);
		options_init(&table, o);
		r = options_parse_file(&table, 0, file, !given_by_name, o, e);
		if (r == 0) /* the command line has the last word */
			r = options_parse_argv(&table, 0, "ferryd", argc, argv, o, &operand, e);
	}
	if (r == 0 && operand < argc)
		r = error_say(e, EINVAL, "ferryd takes no operands");
	return r;
}

/* --- while it runs ---------------------------------------------------------------------------------- */

static struct {
	int argc;
	char **argv;
} call; /* for a reload */

static void apply(const struct ferryd_options *o, struct daemon_options *d)
{
	d->admission = (struct admission_limits){(unsigned)o->max_migrations, (unsigned)o->max_queue};
	d->serve_options.limits.memory = o->max_peer_memory;
	d->serve_options.limits.tasks = (uint64_t)o->max_peer_processes;
	d->max_per_host = (unsigned)o->max_per_host;
	d->first_byte_ms = (int)o->first_byte * 1000;
	d->log_level = (int)o->verbosity;
}

static int reload(struct daemon_options *d, struct error *e)
{
	struct ferryd_options o;

	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)now_ns() / 1000);
	int r = parse(call.argc, call.argv, &o, e);

	if (r == 0)
		apply(&o, d);
	options_deinit(&table, &o);
	sd_notify(0, "READY=1");
	return r;
}

/* The loop comes by three times as often as it must; that is often enough. */
static void alive(void)
{
	sd_notify(0, "WATCHDOG=1");
}

static int serve(const struct ferryd_options *o, const int *socks, int n, int control, int64_t gid,
		 struct error *e)
{
	struct daemon_options d = {.max_peers = (unsigned)o->max_peers,
				   .serve = migrate_serve,
				   .recover_needed = recover_needed,
				   .recover = recover_run,
				   .serve_options = {.journal_dir = rundir_path(),
						     .link = {.keys_dir = o->keys, .insecure = o->insecure},
						     .attended = rundir_has_job,
						     .place = scope_make},
				   .control_gid = gid,
				   .libdir = o->libdir,
				   .log = log_about,
				   .reload = reload};
	uint64_t watchdog_us = 0;

	apply(o, &d);
	if (sd_watchdog_enabled(0, &watchdog_us) > 0) {
		d.alive = alive;
		d.alive_ms = MAX((int)(watchdog_us / 3000), 1);
	}
	int r = o->metrics ? monitor_new(&d.monitor, o->metrics, e) : 0;

	if (r >= 0) {
		sd_notify(0, "READY=1\nSTATUS=Waiting for peers");
		r = daemon_run(&d, socks, (size_t)n, control, e);
		sd_notify(0, "STOPPING=1");
	}
	monitor_free(d.monitor);
	return r;
}

static int run(const struct ferryd_options *o, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/ferryd.sock", rundir_path());
	cleanup_close int lock = -1, own = -1;
	int socks[MAX_LISTEN], control = -1;
	int64_t gid;
	int r = find_group(o, &gid, e), n;

	if (r >= 0)
		r = rundir_lock(&lock, e);
	n = r < 0 ? r : given(o, socks, &control, e);
	if (n < 0)
		return n;
	if (control < 0)
		control = own = rundir_listen(path, e);
	close(TAKE_FD(lock));
	if (control < 0)
		return error_prefix(e, "another ferryd may be running");
	if (n == 0)
		n = listeners(o, socks, e);
	r = n < 0 ? n : gid >= 0 ? rundir_let_group(control, (gid_t)gid, e) : 0;
	if (r >= 0)
		r = serve(o, socks, n, control, gid, e);
	if (own >= 0)
		unlink(path);
	return r;
}

/* For those who install it. */
static bool print_parts(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--completion"))
		return completion_of("ferryd", &table, argv[2], stdout);
	if (argc != 2 || strcmp(argv[1], "--manual"))
		return false;
	manual_head("ferryd.conf", 5, "configuration of ferryd", stdout);
	puts(".SH SYNOPSIS\n.I " DEFAULT_CONFIG "\n.SH DESCRIPTION\n"
	     "The options of\n.BR ferryd (8),\none a line, without dashes. A value stands behind the name, "
	     "after blanks or an "
	     "equals sign, in quotes if it has blanks itself;\n.B #\nbegins a comment. An option without a "
	     "value is switched "
	     "on by its name. What the command line says counts more.\n.PP\n.B \"ferryd "
	     "\\-\\-check\\-config\"\n"
	     "tells whether a file is good. SIGHUP has it read again.\n.SH OPTIONS");
	manual_options(&table, 0, true, stdout);
	puts(".SH EXAMPLE\n.nf\nlisten 192.0.2.1\nmax\\-migrations 4\nmax\\-peer\\-memory 16G\n.fi\n"
	     ".SH \"SEE ALSO\"\n.BR ferryd (8),\n.BR ferry (1)");
	return true;
}

int main(int argc, char **argv)
{
	struct ferryd_options o;
	struct error e = ERROR_INIT;

	if (print_parts(argc, argv))
		return fflush(stdout) || ferror(stdout) ? 1 : 0;

	call.argc = argc;
	call.argv = argv;
	int r = parse(argc, argv, &o, &e);

	if (r == 0 && o.help) {
		puts("Usage: ferryd [OPTION]...\n\nWait for process trees that ferry migrate sends, and run "
		     "them here.\n");
		options_usage(&table, 0, stdout);
	} else if (r == 0 && o.version) {
		puts("ferryd " FERRY_VERSION);
	} else if (r == 0) {
		cleanup_free char *libdir = o.libdir ? realpath(o.libdir, NULL) : NULL;

		if (libdir) {
			free(o.libdir);
			o.libdir = TAKE_PTR(libdir);
		}
		if (o.libdir)
			paths_set_libdir(o.libdir);
		r = o.check_config ? check_config(&o, &e) : run(&o, &e);
	}
	if (r < 0) {
		cleanup_free char *text = xasprintf("Error: %s", e.text);

		log_line(1, text);
	}
	options_deinit(&table, &o);
	return r < 0 ? 1 : 0;
}
