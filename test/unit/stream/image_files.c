/* SPDX-License-Identifier: Apache-2.0 */
/* Files of an image while they come into being: abandoned, replaced, in the way, and a disk that is full. */
#include "helpers.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

static struct memory mem;

static void dump(int fd, const char *host)
{
	struct error e = ERROR_INIT;
	struct stream_out *out;

	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	assert_ok(put_inventory(out, host, &e), &e);
	assert_ok(put_filled(out, 1, 0x10000, P, 1, &e), &e);
	assert_ok(stream_finish(out, &e), &e);
	stream_out_free(out);
}

static void holds(int fd, const char *host)
{
	struct error e = ERROR_INIT;
	struct stream_in *in;

	assert_ok(stream_in_dir(&in, fd, &e), &e);
	assert_ok(memory_read(&mem, in, &e), &e);
	stream_in_free(in);
	assert_string_equal(mem.host, host);
	assert_int_equal(count_files(fd), 3);
}

static void test_abandon(void **state)
{
	cleanup_close int fd = scratch_dir("abandon");
	struct error e = ERROR_INIT;
	struct stream_out *out;

	(void)state;
	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	assert_ok(put_filled(out, 1, 0x10000, P, 1, &e), &e);
	assert_int_equal(count_files(fd), 3);
	stream_out_free(out);
	assert_int_equal(count_files(fd), 0);
	stream_out_free(NULL);
}

static void test_replace(void **state)
{
	cleanup_close int fd = scratch_dir("replace");
	struct error e = ERROR_INIT;
	struct stream_out *out;

	(void)state;
	dump(fd, "old");
	holds(fd, "old");
	/* The old one stays until the new one is finished, and after one that was given up. */
	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	assert_ok(put_inventory(out, "half", &e), &e);
	stream_out_free(out);
	holds(fd, "old");
	dump(fd, "new");
	holds(fd, "new");
}

static void test_busy_and_stale(void **state)
{
	cleanup_close int fd = scratch_dir("busy");
	struct error e = ERROR_INIT;
	struct stream_out *out, *other;

	(void)state;
	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	assert_error(stream_out_dir(&other, fd, NULL, &e), &e, EBUSY, "another dump is being written");
	error_clear(&e);
	assert_int_equal(count_files(fd), 3);
	stream_out_free(out);
	/* A writer that was killed. */
	pid_t pid = fork();

	if (pid == 0) {
		if (stream_out_dir(&out, fd, NULL, &e) == 0)
			kill(getpid(), SIGKILL);
		_exit(1);
	}
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(count_files(fd), 3);
	dump(fd, "after");
	holds(fd, "after");
}

static void test_in_the_way(void **state)
{
	cleanup_close int fd = scratch_dir("way"), target = scratch_dir("target");
	struct error e = ERROR_INIT;
	struct stream_out *out;
	cleanup_free char *link = xasprintf("%s/target/file", scratch);
	struct stat st;

	(void)state;
	/* A link instead of the file is neither followed nor kept. */
	assert_int_equal(symlinkat(link, fd, PAGES_IMG ".part"), 0);
	assert_error(stream_out_dir(&out, fd, NULL, &e), &e, ELOOP, PAGES_IMG);
	error_clear(&e);
	assert_int_equal(unlinkat(fd, PAGES_IMG ".part", 0), 0);
	assert_int_equal(count_files(fd), 0);
	assert_int_equal(symlinkat(link, fd, PAGES_IMG), 0);
	dump(fd, "x");
	assert_int_equal(count_files(target), 0);
	assert_int_equal(fstatat(fd, PAGES_IMG, &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISREG(st.st_mode));
	unlinkat(fd, PAGEMAP_IMG, 0);
	mkdirat(fd, PAGEMAP_IMG, 0700);
	assert_error(stream_out_dir(&out, fd, NULL, &e), &e, EISDIR, PAGEMAP_IMG);
	error_clear(&e);
	assert_error(stream_out_dir(&out, -1, NULL, &e), &e, EBADF, "image directory");
}

/* In a process of its own: a file system of 1 MiB that nobody else sees. Returns the number of the check that
 * failed. */
static int full_disk(void)
{
	cleanup_free uint8_t *data = xcalloc(1, 2 << 20);
	struct error e = ERROR_INIT;
	struct stream_out *out;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", scratch, "tmpfs", 0, "size=1m") < 0)
		return 77;
	cleanup_close int fd = open(scratch, O_RDONLY | O_DIRECTORY);

	dump(fd, "old");
	if (stream_out_dir(&out, fd, NULL, &e) < 0)
		return 2;
	/* By a big run at once, then by small ones. */
	if (put_run(out, 0, 0, 1, 0, 2 << 20, data, &e) != -ENOSPC || !strstr(e.text, PAGES_IMG) ||
	    !strstr(e.text, "No space left"))
		return 3;
	error_clear(&e);
	if (stream_finish(out, &e) != -ENOSPC)
		return 4;
	stream_out_free(out);
	error_clear(&e);
	if (stream_out_dir(&out, fd, NULL, &e) < 0)
		return 5;
	int rc = 0;

	for (uint64_t i = 0; i < 400 && rc == 0; i++)
		rc = put_run(out, 0, 0, 1, i * 2 * P, P, data, &e);
	if (rc == 0)
		rc = stream_finish(out, &e);
	if (rc != -ENOSPC)
		return 6;
	stream_out_free(out);
	/* State alone, in the file that is buffered. */
	error_clear(&e);
	memset(data, 'x', (2 << 20) - 1);
	if (stream_out_dir(&out, fd, NULL, &e) < 0)
		return 7;
	rc = put_inventory(out, (char *)data, &e);
	if (rc == 0)
		rc = stream_finish(out, &e);
	if (rc != -ENOSPC || !strstr(e.text, STATE_IMG))
		return 8;
	stream_out_free(out);
	holds(fd, "old");
	return 0;
}

static void test_full_disk(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(full_disk());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_abandon),        cmocka_unit_test(test_replace),
		cmocka_unit_test(test_busy_and_stale), cmocka_unit_test(test_in_the_way),
		cmocka_unit_test(test_full_disk),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
