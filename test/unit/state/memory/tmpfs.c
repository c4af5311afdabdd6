/* SPDX-License-Identifier: Apache-2.0 */
/* Files on tmpfs that travel: made under another name first, found, refused, undone. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "state/memory/named.h"

static char name[64];
static struct tree no_tree;
static struct process nobody = {.pid = -1};
static struct process *procs[] = {&nobody};

static Ferry__Object describe(struct memory_object *o)
{
	Ferry__Object m = FERRY__OBJECT__INIT;
	struct capture c = {.tree = &no_tree};
	struct error e = ERROR_INIT;
	struct stat st;

	o->kind = FERRY__OBJECT_KIND__OBJECT_TMPFS;
	o->name = name;
	o->fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	assert_true(o->fd >= 0);
	assert_int_equal(pwrite(o->fd, "five!", 5, 0), 5);
	fstat(o->fd, &st);
	o->dev = st.st_dev;
	o->ino = st.st_ino;
	assert_int_equal(tmpfs_note(&c, o, &e), 0);
	m.id = 1;
	m.kind = o->kind;
	m.name = name;
	m.size = 5;
	m.mode = 0640;
	m.uid = 3;
	m.file = o->file;
	return m;
}

static void done(struct memory_object *o)
{
	unlink(name);
	close(o->fd);
	ferry__file_identity__free_unpacked(o->file, NULL);
}

static void test_found(void **state)
{
	(void)state;
	struct memory_object o = {0};
	Ferry__Object m = describe(&o);
	struct error e = ERROR_INIT;
	struct stat st;
	int fd = -1;

	assert_int_equal(tmpfs_check(&m, &e), 0);
	assert_int_equal(tmpfs_create(&m, &fd, &e), OBJECT_SAME);
	assert_int_equal(tmpfs_finish(&m, fd, &e), 0);
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_uid, getuid());
	close(fd);
	assert_int_equal(ftruncate(o.fd, 6), 0);
	assert_int_equal(tmpfs_check(&m, &e), -ESTALE);
	done(&o);
}

static void test_made(void **state)
{
	(void)state;
	struct memory_object o = {0};
	Ferry__Object m = describe(&o);
	struct error e = ERROR_INIT;
	char text[8] = "";
	struct stat st;
	int fd = -1;

	unlink(name);
	assert_int_equal(tmpfs_check(&m, &e), 0);
	assert_int_equal(tmpfs_create(&m, &fd, &e), OBJECT_MADE);
	assert_int_equal(access(name, F_OK), -1); /* not before all is there */
	assert_int_equal(pwrite(fd, "five!\0\0", 7, 0), 7);
	assert_int_equal(tmpfs_finish(&m, fd, &e), 0);
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_uid, 3);
	assert_int_equal(st.st_size, 5);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(pread(fd, text, 8, 0), 5);
	assert_string_equal(text, "five!");
	tmpfs_discard(&m, fd);
	assert_int_equal(access(name, F_OK), -1);
	close(fd);
	/* Undone before it had its name. */
	assert_int_equal(tmpfs_create(&m, &fd, &e), OBJECT_MADE);
	tmpfs_discard(&m, fd);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_nlink, 0);
	close(fd);
	done(&o);
}

static void test_in_the_way(void **state)
{
	(void)state;
	struct memory_object o = {0};
	Ferry__Object m = describe(&o);
	struct error e = ERROR_INIT;
	int fd = -1;

	unlink(name);
	assert_int_equal(tmpfs_create(&m, &fd, &e), OBJECT_MADE);
	int other = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_int_equal(tmpfs_finish(&m, fd, &e), -EEXIST);
	error_clear(&e);
	tmpfs_discard(&m, fd);
	assert_int_equal(access(name, F_OK), 0);
	assert_int_equal(tmpfs_check(&m, &e), -EEXIST);
	assert_non_null(strstr(e.text, "is another file here"));
	close(other);
	close(fd);
	done(&o);
}

static void test_outside(void **state)
{
	(void)state;
	struct memory_object o = {0};
	Ferry__Object m = describe(&o);
	struct error e = ERROR_INIT;

	unlink(name);
	free(m.file->outside);
	m.file->outside = xstrdup("pid 12 (other)");
	assert_int_equal(tmpfs_check(&m, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "pid 12 (other)"));
	done(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),
		cmocka_unit_test(test_made),
		cmocka_unit_test(test_in_the_way),
		cmocka_unit_test(test_outside),
	};

	no_tree = (struct tree){.procs = procs, .n = 1};
	snprintf(name, sizeof(name), "/dev/shm/ferry-unit-%d", getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
