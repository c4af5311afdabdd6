/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One call of ferry: its options, its log and what it shows. */
#include "base/error.h"
#include "base/events.h"
#include "cli/display.h"
#include "cli/log.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "service/chain.h"
#include "state/files/external.h"

struct cli {
	const struct verb *verb;
	struct cli_options o;
	char *externals; /* --external and --inherit-fd, parsed */
	struct inherited *inherited;
	enum cgroup_mode cgroups;
	char *cgroup_roots;
	int argc; /* operands */
	char **argv;
	struct log log;
	struct display display;
	struct events events; /* to display and log */
};

/* All of ferry but the process: returns the exit code. */
int cli_main(int argc, char **argv);

/* --- for the verbs ---------------------------------------------------------------------- */
/* Options from files and command line. @argv[0] is the verb. */
int cli_parse(struct cli *c, int argc, char **argv, struct error *e);
/* The images directory; descriptor or -errno. */
int cli_open_images(struct cli *c, struct error *e);
/* Where log and pid file go. */
const char *cli_work_dir(const struct cli *c);
/* Absolute path of the images directory, malloc'ed. */
char *cli_images_path(const struct cli *c);
/* The session and state options, as given. */
void cli_session_options(const struct cli *c, struct session_options *ret);
/* --on-stall, by name. */
int cli_on_stall(const struct cli *c, enum on_stall *ret, struct error *e);
/* --compress, by name. */
int cli_compress(const struct cli *c, enum compress_mode *ret, struct error *e);
void cli_state_options(const struct cli *c, struct state_options *ret);
/* --external and --inherit-fd, for cli_state_options(). */
int cli_parse_external(struct cli *c, struct error *e);
void cli_free_external(struct cli *c);
/* Write @pid to --pidfile, if given: whole or not at all. */
int cli_write_pidfile(const struct cli *c, pid_t pid, struct error *e);
/* For verbs that serve: a listening socket as --address and --port say, its port printed if it was chosen
 * here; one zero byte to --status-fd, if given; go on in the background (the parent writes the pid file and
 * ends). */
int cli_listen(struct cli *c, struct error *e);
/* --address and --port of a page server, as for link_connect; malloc'ed. */
char *cli_page_server(const struct cli *c);
int cli_tell_ready(const struct cli *c, struct error *e);
int cli_background(struct cli *c, struct error *e);
/* The socket at which "lazy-pages" waits for "restore --lazy-pages", and what both write down; malloc'ed. */
char *cli_lazy_socket(const struct cli *c);
char *cli_lazy_state(const struct cli *c);
/* How page servers are talked to. */
struct link_options;
int cli_link_options(const struct cli *c, struct link_options *ret, struct error *e);
/* A pid from an operand or from --tree; with --owner only one of his. */
int cli_target(const struct cli *c, pid_t *ret, struct error *e);
/* --manage-cgroups and --cgroup-root, for cli_state_options(). */
int cli_parse_cgroups(struct cli *c, struct error *e);
/* --join-ns, --empty-ns: into the namespaces of the tree to be restored; for scripts of the steps
 * setup-namespaces and post-setup-namespaces the process in them is this one. */
struct script;
int cli_check_empty_ns(const struct cli *c, struct error *e);
int cli_enter_namespaces(const struct cli *c, const struct script *s, struct error *e);
