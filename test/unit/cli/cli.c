/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/util.h"
#include "cli/cli.h"

static char dir[64];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ferry-cli-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	setenv("HOME", dir, 1);
	return 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", dir);

	(void)state;
	return system(cmd);
}

#define PARSE(c, e, ...) parse(c, e, (const char *[]){__VA_ARGS__, NULL})
static int parse(struct cli *c, struct error *e, const char **words)
{
	static char *argv[32];
	int argc = 0;

	memset(c, 0, sizeof(*c));
	error_clear(e);
	c->verb = verb_find(words[0]);
	assert_non_null(c->verb);
	for (; words[argc]; argc++)
		argv[argc] = (char *)words[argc];
	argv[argc] = NULL;
	return cli_parse(c, argc, argv, e);
}

static void done(struct cli *c)
{
	options_deinit(&cli_table, &c->o);
}

static void write_file(const char *name, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* Each row of the table must be sound: it is only looked at when somebody types the option. */
static void table(void **state)
{
	(void)state;
	for (size_t i = 0; i < cli_table.n; i++) {
		const struct opt *o = &cli_table.opts[i];

		assert_true(o->offset < cli_table.size);
		assert_true(o->type != OPT_INT || o->min < o->max || !o->help);
		assert_true((o->flags & (OPT_ACCEPTED | OPT_UNSUPPORTED)) || o->help);
		for (size_t k = 0; k < i; k++) {
			assert_string_not_equal(o->name, cli_table.opts[k].name);
			assert_true(!o->letter || o->letter != cli_table.opts[k].letter);
		}
	}
}

static void scripts_calls(void **state)
{
	struct error e;
	struct cli c;

	(void)state;
	assert_int_equal(PARSE(&c, &e, "dump", "-t", "12", "-D", "/img", "-o", "dump.log", "-v4",
			       "--track-mem", "-R", "--tcp-established", "--prev-images-dir", "../1",
			       "--pre-dump-mode", "read", "-j", "--ghost-limit", "10M", "--force-irmap",
			       "--network-lock=nftables", "--no-default-config", "--auto-dedup"),
			 0);
	assert_int_equal(c.o.tree, 12);
	assert_string_equal(c.o.images_dir, "/img");
	assert_string_equal(cli_work_dir(&c), "/img");
	assert_string_equal(c.o.log_file, "dump.log");
	assert_int_equal(c.o.verbosity, 4);
	assert_true(c.o.leave_running && c.o.shell_job);
	assert_string_equal(c.o.prev_images_dir, "../1");
	assert_int_equal(c.o.ghost_limit, 10 << 20);
	done(&c);
	assert_int_equal(PARSE(&c, &e, "restore", "-d", "-S", "-D", "i", "-W", "w", "--pidfile", "p",
			       "--mntns-compat-mode", "--tree", "5", "--leave-running", "-verbosity=0",
			       "--exec-cmd", "--", "sh", "-c", "x"),
			 0);
	assert_true(c.o.restore_detached && c.o.restore_sibling && c.o.exec_cmd);
	assert_string_equal(cli_work_dir(&c), "w");
	assert_int_equal(c.o.verbosity, 0);
	assert_int_equal(c.argc, 3);
	assert_string_equal(c.argv[0], "sh");
	assert_null(c.argv[3]);
	done(&c);
}

static void unsupported(void **state)
{
	static const char *const words[] = {"--ext-mount-map=auto", "--ext-mount-map=x"};
	struct error e;
	struct cli c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		assert_int_equal(PARSE(&c, &e, "dump", words[i], "-o", "f"), -ENOTSUP);
		assert_non_null(strstr(e.text, "is not supported"));
		assert_string_equal(c.o.log_file, "f"); /* a failed call has its log, too */
		done(&c);
	}
	/* It changes nothing for this verb. */
	assert_int_equal(PARSE(&c, &e, "check", "--lazy-pages"), 0);
	done(&c);
	assert_int_equal(PARSE(&c, &e, "dump", "--to", "h"), -EINVAL);
	done(&c);
}

static void cgroups(void **state)
{
	static const struct {
		const char *word;
		enum cgroup_mode mode;
	} all[] = {{"--manage-cgroups", CGROUPS_SOFT},         {"--manage-cgroups=none", CGROUPS_NONE},
		   {"--manage-cgroups=props", CGROUPS_PROPS},  {"--manage-cgroups=soft", CGROUPS_SOFT},
		   {"--manage-cgroups=full", CGROUPS_FULL},    {"--manage-cgroups=strict", CGROUPS_STRICT},
		   {"--manage-cgroups=ignore", CGROUPS_IGNORE}};
	struct state_options o;
	struct error e;
	struct cli c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		assert_int_equal(PARSE(&c, &e, "dump", all[i].word), 0);
		assert_int_equal(cli_parse_cgroups(&c, &e), 0);
		assert_int_equal(c.cgroups, all[i].mode);
		done(&c);
	}
	assert_int_equal(PARSE(&c, &e, "dump"), 0);
	assert_int_equal(cli_parse_cgroups(&c, &e), 0);
	assert_int_equal(c.cgroups, CGROUPS_IGNORE);
	done(&c);
	assert_int_equal(PARSE(&c, &e, "dump", "--manage-cgroups=some"), 0);
	assert_int_equal(cli_parse_cgroups(&c, &e), -EINVAL);
	done(&c);
	assert_int_equal(PARSE(&c, &e, "restore", "--cgroup-root=/x", "--cgroup-root", "cpu:/y"), 0);
	assert_int_equal(cli_parse_cgroups(&c, &e), 0);
	cli_state_options(&c, &o);
	assert_int_equal(o.cgroups, CGROUPS_SOFT);
	assert_string_equal(o.cgroup_root, "/x\ncpu:/y");
	assert_null(o.cgroup_base);
	cli_free_external(&c);
	done(&c);
	assert_int_equal(PARSE(&c, &e, "restore", "--cgroup-root=/x/../y"), 0);
	assert_int_equal(cli_parse_cgroups(&c, &e), -EINVAL);
	done(&c);
}

static void config_files(void **state)
{
	cleanup_free char *file = xasprintf("%s/extra.conf", dir), *sub = xasprintf("%s/.ferry", dir);
	cleanup_free char *missing = xasprintf("%s/no.conf", dir);
	struct error e;
	struct cli c;

	(void)state;
	assert_int_equal(mkdir(sub, 0700), 0);
	write_file(".ferry/default.conf", "timeout 20\nmax-rounds 5\nrestore-detached\nto elsewhere\n");
	write_file("extra.conf", "max-rounds 6\nuptime\n");
	assert_int_equal(PARSE(&c, &e, "dump"), 0);
	assert_int_equal(c.o.timeout, 20);
	assert_int_equal(c.o.max_rounds, 5);
	assert_false(c.o.restore_detached);
	assert_null(c.o.to);
	done(&c);
	assert_int_equal(PARSE(&c, &e, "dump", "--no-default-config"), 0);
	assert_int_equal(c.o.timeout, 10);
	done(&c);
	assert_int_equal(PARSE(&c, &e, "dump", "--config", file), -EINVAL);
	assert_non_null(strstr(e.text, "extra.conf, line 2: uptime is not an option"));
	done(&c);
	write_file("extra.conf", "max-rounds 6\ndowntime 7\n");
	assert_int_equal(PARSE(&c, &e, "dump", "--downtime", "8", "--config", file), 0);
	assert_int_equal(c.o.max_rounds, 6); /* over the default file */
	assert_int_equal(c.o.downtime, 8);   /* the command line is over all */
	done(&c);
	assert_int_equal(PARSE(&c, &e, "dump", "--config", missing), -ENOENT);
	done(&c);
}

static void logs(void **state)
{
	cleanup_free char *path = xasprintf("%s/x.log", dir);
	cleanup_free char *text = NULL;
	struct error e = ERROR_INIT;
	struct log l;
	unsigned long s, us;
	int n = 0;

	(void)state;
	log_init(&l);
	assert_int_equal(log_open(&l, dir, "x.log", &e), 0);
	log_line(&l, 2, "careful");
	log_line(&l, 3, "not at this level");
	error_say_at(&e, "a.c:1", EIO, "it broke");
	log_error(&l, &e);
	log_close(&l);
	assert_true(read_file(path, &text) > 0);
	assert_int_equal(sscanf(text, "(%lu.%6lu) Warning: careful\n%n", &s, &us, &n), 2);
	assert_true(n > 0);
	assert_non_null(strstr(text + n, ") Error (a.c:1): it broke\n"));
	assert_null(strstr(text, "level"));
	error_clear(&e);
	assert_int_equal(log_open(&l, "/nonexistent", "x.log", &e), -ENOENT);
}

static char *shown(bool json, const char *const *events)
{
	struct display d;
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	display_init(&d, f, json);
	d.verb = "dumped";
	for (; *events; events++) {
		json_t *j = json_loads(*events, 0, NULL);

		assert_non_null(j);
		display_event(&d, j);
		json_decref(j);
	}
	display_end(&d);
	fclose(f);
	return text;
}

static void display(void **state)
{
	static const char *const events[] = {
		"{\"event\":\"start\",\"pid\":99999999,\"processes\":2,\"threads\":3,"
		"\"bytes\":1048576,\"backend\":\"uffd-wp\"}",
		"{\"event\":\"log\",\"level\":3,\"text\":\"quiet\"}",
		"{\"event\":\"round\",\"n\":1,\"pages\":256,\"bytes\":1048576,"
		"\"mib_s\":900.4,\"dirty_mib_s\":2,\"left_ms\":1.5}",
		"{\"event\":\"done\",\"rounds\":1,\"pages\":256,\"bytes\":"
		"1048576,\"downtime_ms\":4.2,\"total_ms\":1500,"
		"\"phases\":{\"freeze_ms\":1.25}}",
		"{\"event\":\"restored\",\"pid\":12,\"processes\":1,\"bytes\":2048,\"total_ms\":3}",
		NULL};
	cleanup_free char *plain = shown(false, events), *json = shown(true, events);
	char b[32];

	(void)state;
	assert_non_null(
		strstr(plain, "process 99999999: 2 processes, 3 threads, 1.00 MiB, tracked by uffd-wp\n"));
	assert_non_null(
		strstr(plain, "256 pages    1.00 MiB     900 MiB/s  dirty        -    left 1.50 ms\n"));
	assert_non_null(strstr(plain, "process 99999999 dumped\n"));
	assert_non_null(strstr(plain, "downtime  4.20 ms  freeze 1.25 ms\n"));
	assert_non_null(strstr(plain, "process 12 restored: 1 process, 2.00 KiB in 3.00 ms\n"));
	assert_null(strstr(plain, "quiet"));
	assert_null(strchr(plain, '\r'));
	assert_non_null(strstr(json, "{\"event\":\"round\",\"n\":1,"));
	assert_non_null(strstr(json, "quiet"));
	assert_string_equal(display_bytes(512, b), "512 B");
	assert_string_equal(display_bytes(1536, b), "1.50 KiB");
	assert_string_equal(display_bytes(5e15, b), "4547 TiB");
	assert_string_equal(display_ms(12345, b), "12 s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),   cmocka_unit_test(scripts_calls), cmocka_unit_test(unsupported),
		cmocka_unit_test(cgroups), cmocka_unit_test(config_files),  cmocka_unit_test(logs),
		cmocka_unit_test(display),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
