/* SPDX-License-Identifier: Apache-2.0 */
/* The files of docs/trust.md. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/util.h"
#include "migrate/keys.h"

#define OTHER "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static char base[64], dir[96];

static int setup(void **state)
{
	(void)state;
	strcpy(base, "/tmp/ferry-keys-XXXXXX");
	if (!mkdtemp(base))
		return -1;
	snprintf(dir, sizeof(dir), "%s/a/b", base);
	return 0;
}

static int teardown(void **state)
{
	cleanup_free char *cmd = xasprintf("rm -r %s", base);

	(void)state;
	return system(cmd);
}

static void put_file(const char *name, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write_full(fd, text, strlen(text)), 0);
}

static void test_grants(void **state)
{
	struct error e = ERROR_INIT;
	unsigned g = 0;

	(void)state;
	assert_int_equal(grants_parse("send,page-serve", &g, &e), 0);
	assert_int_equal(g, GRANT_SEND | GRANT_PAGE_SERVE);
	cleanup_free char *text = grants_text(GRANT_ALL);

	assert_string_equal(text, "send,receive,page-serve");
	assert_int_equal(grants_parse("send,fly", &g, &e), -EINVAL);
	assert_non_null(strstr(e.text, "\"fly\""));
}

static void test_host_key(void **state)
{
	struct error e = ERROR_INIT;
	struct keys *k = NULL;
	struct stat st;

	(void)state;
	assert_int_equal(keys_load(dir, &k, &e), -ENOENT);
	assert_non_null(strstr(e.text, "ferry keys init"));
	error_clear(&e);
	assert_int_equal(keys_init(dir, &e), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(keys_load(dir, &k, &e), 0);
	assert_true(fingerprint_ok(k->fingerprint));
	keys_free(k);
	assert_int_equal(keys_init(dir, &e), -EEXIST);
	error_clear(&e);
	/* A key that others can read is none. */
	cleanup_free char *path = xasprintf("%s/host.key", dir);

	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(keys_load(dir, &k, &e), -EPERM);
	error_clear(&e);
	assert_int_equal(chmod(path, 0600), 0);
	put_file("host.crt", "not a certificate\n");
	assert_int_equal(keys_load(dir, &k, &e), -EBADMSG);
}

static void test_peers(void **state)
{
	struct error e = ERROR_INIT;
	struct known_peer p = {.name = "b", .grants = GRANT_DEFAULT}, *all;
	struct keys *k = NULL;
	size_t n;

	(void)state;
	cleanup_free char *cmd = xasprintf("rm -rf %s", dir);

	assert_int_equal(system(cmd), 0);
	assert_int_equal(keys_init(dir, &e), 0);
	assert_int_equal(keys_trust(dir, &p, &e), -EINVAL);
	error_clear(&e);
	strcpy(p.fingerprint, OTHER);
	put_file("known_peers", "# ours\n@ca - send\n\nc " OTHER " send # twice\n");
	assert_int_equal(keys_trust(dir, &p, &e), 0);
	p.grants = GRANT_PAGE_SERVE;
	assert_int_equal(keys_trust(dir, &p, &e), 0); /* in place of the first */
	assert_int_equal(keys_load(dir, &k, &e), 0);
	assert_int_equal(k->n_peers, 3);
	assert_int_equal(keys_by_name(k, "b")->grants, GRANT_PAGE_SERVE);
	assert_int_equal(keys_by_name(k, "@ca")->grants, GRANT_SEND);
	assert_int_equal(keys_by_fingerprint(k, OTHER), GRANT_SEND | GRANT_PAGE_SERVE);
	assert_int_equal(keys_by_fingerprint(k, k->fingerprint), 0);
	assert_null(keys_by_name(k, "d"));
	keys_free(k);
	assert_int_equal(keys_forget(dir, "b", &e), 0);
	assert_int_equal(keys_forget(dir, "b", &e), -ENOENT);
	error_clear(&e);
	assert_int_equal(known_peers_read(dir, &all, &n, &e), 0);
	assert_int_equal(n, 2);
	known_peers_free(all, n);
	p.name = "@ca";
	assert_int_equal(keys_trust(dir, &p, &e), -EINVAL);
	error_clear(&e);
	put_file("known_peers", "x SHA256:short send\n");
	assert_int_equal(known_peers_read(dir, &all, &n, &e), -EINVAL);
	assert_non_null(strstr(e.text, "known_peers:1:"));
	error_clear(&e);
	put_file("known_peers", "\nx " OTHER "\n");
	assert_int_equal(known_peers_read(dir, &all, &n, &e), -EINVAL);
	assert_non_null(strstr(e.text, "known_peers:2:"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grants),
		cmocka_unit_test(test_host_key),
		cmocka_unit_test(test_peers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
