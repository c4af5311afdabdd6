/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fake_session.h"
#include "service/msg.h"

static char dir[64];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ferry-chain-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(fake_log, sizeof(fake_log), "%s/log", dir);
	for (int i = 1; i <= 3; i++) {
		cleanup_free char *sub = xasprintf("%s/%d", dir, i);

		mkdir(sub, 0700);
	}
	return 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", dir);

	(void)state;
	return system(cmd);
}

static int step(struct chain *c, enum chain_op op, int n, const char *parent, bool *anew, struct error *e)
{
	cleanup_free char *sub = xasprintf("%s/%d", dir, n);
	cleanup_close int fd = open(sub, O_RDONLY | O_DIRECTORY);
	struct chain_request r = {.op = op,
				  .dirfd = fd,
				  .page_server = -1,
				  .parent = parent,
				  .session = {.pid = 1, .backend = "b"}};

	error_clear(e);
	return chain_run(c, &r, NULL, anew, e);
}

static void said(const char *text)
{
	cleanup_free char *s = fake_said();

	assert_string_equal(s, text);
}

static void parents(void **state)
{
	struct chain c = {.ops = &fake_ops};
	struct error e;
	bool anew;

	(void)state;
	assert_int_equal(step(&c, CHAIN_PREDUMP, 1, NULL, &anew, &e), 0);
	assert_int_equal(step(&c, CHAIN_PREDUMP, 2, "../1", &anew, &e), 0);
	assert_false(anew);
	said("open b;predump -;options b;predump ../1;");
	/* Not the newest: what was written since is no longer known. */
	assert_int_equal(step(&c, CHAIN_PREDUMP, 3, "../1", &anew, &e), 0);
	assert_true(anew);
	said("close;open b;predump -;");
	/* Another name of the same directory. */
	assert_int_equal(step(&c, CHAIN_DUMP, 2, "../2/../3", &anew, &e), 0);
	assert_false(anew);
	said("options b;dump ../2/../3;close;");
	assert_null(c.session);
	/* The session is over: nothing to build on. A parent that is not there neither. */
	assert_int_equal(step(&c, CHAIN_PREDUMP, 3, "../2", &anew, &e), 0);
	assert_true(anew);
	assert_int_equal(step(&c, CHAIN_PREDUMP, 3, "../9", &anew, &e), 0);
	assert_true(anew);
	/* No parent: a new chain, and no word about it. */
	assert_int_equal(step(&c, CHAIN_DUMP, 3, NULL, &anew, &e), 0);
	assert_false(anew);
	said("open b;predump -;close;open b;predump -;close;open b;dump -;close;");
}

static void failure_ends_the_session(void **state)
{
	struct chain c = {.ops = &fake_ops};
	struct error e;
	bool anew;

	(void)state;
	assert_int_equal(step(&c, CHAIN_PREDUMP, 1, NULL, &anew, &e), 0);
	fake_trouble = "fail";
	assert_int_equal(step(&c, CHAIN_PREDUMP, 2, "../1", &anew, &e), -ENOSPC);
	fake_trouble = "";
	assert_null(c.session);
	assert_int_equal(step(&c, CHAIN_PREDUMP, 2, "../1", &anew, &e), 0);
	assert_true(anew);
	chain_close(&c);
	said("open b;predump -;options b;predump ../1;close;open b;predump -;close;");
}

static void requests_travel(void **state)
{
	struct chain_request r = {.op = CHAIN_DUMP,
				  .parent = "../1",
				  .end = SESSION_STOP,
				  .log_level = 4,
				  .page_server = 7,
				  .script = {"/bin/hook", "/img"},
				  .session = {.pid = 42,
					      .backend = "soft-dirty",
					      .freeze_cgroup = "/sys/fs/cgroup/x",
					      .freeze_timeout_ms = 1234,
					      .max_rounds = 3,
					      .downtime_ms = 9,
					      .max_bandwidth = 1ull << 40,
					      .state = {.tcp_close = true,
							.tcp_established = true,
							.link_remap = true,
							.ghost_limit = 5,
							.root = "/r",
							.externals = "pipe[7]\n"}}},
			     got;
	struct error e = ERROR_INIT;
	json_t *m = chain_request_pack(&r);

	(void)state;
	assert_int_equal(chain_request_unpack(m, &got, &e), 0);
	assert_int_equal(got.op, CHAIN_DUMP);
	assert_string_equal(got.parent, "../1");
	assert_int_equal(got.end, SESSION_STOP);
	assert_string_equal(got.script.path, "/bin/hook");
	assert_string_equal(got.script.images_dir, "/img");
	assert_int_equal(got.session.pid, 42);
	assert_string_equal(got.session.backend, "soft-dirty");
	assert_string_equal(got.session.freeze_cgroup, "/sys/fs/cgroup/x");
	assert_int_equal(got.session.freeze_timeout_ms, 1234);
	assert_int_equal(got.session.max_rounds, 3);
	assert_int_equal(got.session.downtime_ms, 9);
	assert_int_equal(got.session.max_bandwidth, 1ull << 40);
	assert_true(got.session.state.tcp_close && got.session.state.tcp_established &&
		    got.session.state.link_remap && !got.session.state.file_locks);
	assert_int_equal(got.session.state.ghost_limit, 5);
	assert_string_equal(got.session.state.root, "/r");
	assert_string_equal(got.session.state.externals, "pipe[7]\n");
	json_object_set_new(m, "op", json_string("explode"));
	assert_int_equal(chain_request_unpack(m, &got, &e), -EPROTO);
	json_decref(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parents),
		cmocka_unit_test(failure_ends_the_session),
		cmocka_unit_test(requests_travel),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
