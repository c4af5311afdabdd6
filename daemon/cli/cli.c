/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"
#include "cli/completion.h"
#include "cli/errand.h"
#include "cli/manual_verb.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#include "base/util.h"
#include "service/msg.h"

#define DEFAULT_CONFIG "/etc/ferry/default.conf"

const char *cli_work_dir(const struct cli *c)
{
	return c->o.work_dir ? c->o.work_dir : c->o.images_dir;
}

static int read_configs(struct cli *c, const struct cli_options *first, struct error *e)
{
	const char *home = getenv("HOME");
	int r = 0;

	if (!first->no_default_config) {
		cleanup_free char *own = xasprintf("%s/.ferry/default.conf", home ? home : "");

		r = options_parse_file(&cli_table, c->verb->bit, DEFAULT_CONFIG, true, &c->o, e);
		if (r == 0 && home && *home)
			r = options_parse_file(&cli_table, c->verb->bit, own, true, &c->o, e);
	}
	if (r == 0 && first->config)
		r = options_parse_file(&cli_table, c->verb->bit, first->config, false, &c->o, e);
	return r;
}

/* Twice: once to learn which files are to be read, once to have the last word over them. */
int cli_parse(struct cli *c, int argc, char **argv, struct error *e)
{
	struct cli_options first;
	int operand;

	options_init(&cli_table, &c->o);
	options_init(&cli_table, &first);
	int r = options_parse_argv(&cli_table, c->verb->bit, c->verb->name, argc, argv, &first, &operand, e);

	if (r == 0)
		r = read_configs(c, &first, e);
	if (r == 0)
		r = options_parse_argv(&cli_table, c->verb->bit, c->verb->name, argc, argv, &c->o, &operand,
				       e);
	c->argc = argc - operand;
	c->argv = argv + operand;
	if (r == 0) {
		options_deinit(&cli_table, &first);
		return 0;
	}
	/* A log is wanted even of a call that makes no sense. */
	options_deinit(&cli_table, &c->o);
	c->o = first;
	return r;
}

/* A keeper and a restored tree have another working directory. */
static void set_libdir(const char *dir)
{
	cleanup_free char *full = dir ? realpath(dir, NULL) : NULL;

	if (dir)
		paths_set_libdir(full ? full : dir);
}

static void on_event(void *ctx, const json_t *ev)
{
	struct cli *c = ctx;
	const char *name = msg_str(ev, "event", "");

	display_event(&c->display, ev);
	if (!strcmp(name, "log")) {
		int level = (int)msg_int(ev, "level", 3);

		if (!c->log.f && level <= c->log.level)
			display_end(&c->display);
		log_line(&c->log, level, "%s", msg_str(ev, "text", ""));
	} else if (c->log.f) {
		cleanup_free char *text = json_dumps(ev, JSON_COMPACT | JSON_REAL_PRECISION(9));

		log_line(&c->log, 3, "%s", text ? text : name);
	}
}

static int usage(const struct verb *v)
{
	if (!v) {
		verbs_usage(stdout);
		return 0;
	}
	printf("Usage: ferry %s [OPTION]...%s%s\n\n%c%s.\n\n", v->name, *v->operands ? " " : "", v->operands,
	       v->help[0] - 'a' + 'A', v->help + 1);
	options_usage(&cli_table, v->bit, stdout);
	return 0;
}

static int run_verb(struct cli *c, int argc, char **argv)
{
	struct error e = ERROR_INIT, log_failure = ERROR_INIT;
	cleanup_close int errand = -1;
	int r = cli_parse(c, argc, argv, &e);

	c->log.level = (int)c->o.verbosity;
	if (r == 0 && (c->o.help || c->o.version)) {
		r = c->o.help ? usage(c->verb) : printf("ferry %s\n", FERRY_VERSION) < 0;
		goto out;
	}
	if (c->o.log_file && log_open(&c->log, cli_work_dir(c), c->o.log_file, &log_failure) < 0 && r == 0) {
		e = log_failure;
		r = -e.code;
	}
	display_init(&c->display, stdout, c->o.json);
	log_line(&c->log, 3, "ferry %s %s, pid %d", FERRY_VERSION, c->verb->name, getpid());
	set_libdir(c->o.libdir);
	if (r == 0)
		r = cli_parse_external(c, &e);
	if (r == 0)
		r = cli_parse_cgroups(c, &e);
	errand = r == 0 ? errand_connect(c) : -1;
	if (r == 0)
		r = errand < 0 ? c->verb->run(c, &e) : errand_run(c, errand, argc, argv, &e);
	display_end(&c->display);
	if (r < 0 && !error_is(&e))
		error_set(&e, -r, "%s failed", c->verb->name);
	if (r < 0)
		log_error(&c->log, &e);
	else
		log_line(&c->log, 3, "%s ended with code %d", c->verb->name, r);
out:
	log_close(&c->log);
	cli_free_external(c);
	options_deinit(&cli_table, &c->o);
	return r < 0 ? 1 : r;
}

int cli_main(int argc, char **argv)
{
	struct cli c = {0};
	const char *name = argc > 1 ? argv[1] : "--help";

	signal(SIGPIPE, SIG_IGN);
	log_init(&c.log);
	c.events = (struct events){.emit = on_event, .ctx = &c};
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
		return usage(NULL);
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("ferry %s\n", FERRY_VERSION);
		return 0;
	}
	/* For those who install it. */
	if (!strcmp(name, "--manual") && argc == 3 && manual_verb(argv[2], stdout))
		return fflush(stdout) || ferror(stdout) ? 1 : 0;
	if (!strcmp(name, "--completion") && argc == 3 && completion_print(argv[2], stdout))
		return fflush(stdout) || ferror(stdout) ? 1 : 0;
	/* Options in front of the verb: the first word that is a verb is it. */
	for (int i = 1; i < argc && !c.verb; i++) {
		c.verb = verb_find(argv[i]);
		for (int k = i; c.verb && k > 1; k--) {
			char *word = argv[k];

			argv[k] = argv[k - 1];
			argv[k - 1] = word;
		}
	}
	if (!c.verb) {
		fprintf(stderr, "Error: %s is not a verb of ferry (see ferry --help)\n", name);
		return 1;
	}
	return run_verb(&c, argc - 1, argv + 1);
}
