/* SPDX-License-Identifier: Apache-2.0 */
/* System V segments, in an IPC namespace of the test's own: the same id again, what is in the way, undoing.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "state/memory/named.h"

#define SIZE 5000
#define KEY  0x1234

static struct memory_object note(int id)
{
	struct memory_object o = {.kind = FERRY__OBJECT_KIND__OBJECT_SYSV, .name = "/SYSV00001234"};
	struct error e = ERROR_INIT;

	assert_int_equal(sysv_note(&o, id, &e), 0);
	return o;
}

static Ferry__Object message(const struct memory_object *o)
{
	Ferry__Object m = FERRY__OBJECT__INIT;

	m.id = 1;
	m.kind = o->kind;
	m.name = o->name;
	m.size = o->size;
	m.sysv = o->sysv;
	return m;
}

static int make(void)
{
	int id = shmget(KEY, SIZE, IPC_CREAT | IPC_EXCL | 0640);

	assert_true(id >= 0);
	return id;
}

static void test_again(void **state)
{
	(void)state;
	int other = shmget(IPC_PRIVATE, 100, IPC_CREAT | 0600), id = make(), fd = -1;
	struct memory_object o = note(id);
	Ferry__Object m = message(&o);
	struct error e = ERROR_INIT;
	struct shmid_ds ds;

	assert_int_equal(o.size, SIZE);
	assert_int_equal(o.sysv->name_key, KEY);
	/* Still there, the very same: found, and not undone. */
	assert_int_equal(sysv_check(&m, &e), 0);
	assert_int_equal(sysv_create(&m, &fd, &e), OBJECT_FOUND);
	close(fd);
	assert_int_equal(shmctl(id, IPC_RMID, NULL), 0);
	o.sysv->uid = 7;
	o.sysv->cuid = 1000;
	assert_int_equal(sysv_check(&m, &e), 0);
	assert_int_equal(sysv_create(&m, &fd, &e), OBJECT_MADE);
	assert_int_equal(geteuid(), getuid());
	assert_int_equal(pwrite(fd, "content", 7, 0), 7);
	assert_int_equal(sysv_finish(&m, &e), 0);
	assert_int_equal(shmctl(id, IPC_STAT, &ds), 0);
	assert_int_equal(ds.shm_perm.uid, 7);
	assert_int_equal(ds.shm_perm.cuid, 1000);
	assert_int_equal(ds.shm_perm.mode, 0640);
	assert_int_equal(ds.shm_perm.__key, KEY);
	char *p = shmat(id, NULL, 0);

	assert_memory_equal(p, "content", 7);
	shmdt(p);
	sysv_discard(&m);
	assert_int_equal(shmctl(id, IPC_STAT, &ds), -1);
	close(fd);
	shmctl(other, IPC_RMID, NULL);
	ferry__sysv_segment__free_unpacked(o.sysv, NULL);
}

static void test_in_the_way(void **state)
{
	(void)state;
	int id = make(), fd = -1;
	struct memory_object o = note(id);
	Ferry__Object m = message(&o);
	struct error e = ERROR_INIT;

	/* Another segment with that id. */
	o.sysv->cpid++;
	assert_int_equal(sysv_check(&m, &e), -EEXIST);
	assert_non_null(strstr(e.text, "is taken here"));
	error_clear(&e);
	assert_int_equal(sysv_create(&m, &fd, &e), -EEXIST);
	error_clear(&e);
	/* Another segment with that key. */
	o.sysv->id += 1;
	assert_int_equal(sysv_check(&m, &e), -EEXIST);
	assert_non_null(strstr(e.text, "key 0x1234"));
	error_clear(&e);
	o.sysv->id -= 1;
	o.sysv->cpid--;
	/* The very same, in use. */
	char *p = shmat(id, NULL, 0);

	assert_int_equal(sysv_check(&m, &e), -EBUSY);
	shmdt(p);
	shmctl(id, IPC_RMID, NULL);
	ferry__sysv_segment__free_unpacked(o.sysv, NULL);
}

/* A key that belonged to a segment marked for removal may have a new owner. */
static void test_marked(void **state)
{
	(void)state;
	int id = make(), fd = -1;
	char *p = shmat(id, NULL, 0);
	struct error e = ERROR_INIT;
	struct shmid_ds ds;

	assert_int_equal(shmctl(id, IPC_RMID, NULL), 0);
	struct memory_object o = note(id);
	Ferry__Object m = message(&o);

	assert_int_equal(o.sysv->key, 0);
	shmdt(p);
	sysv_refresh(&o);
	int owner = make();

	assert_true(owner != id);
	assert_int_equal(sysv_check(&m, &e), 0);
	assert_int_equal(sysv_create(&m, &fd, &e), OBJECT_MADE);
	p = shmat(id, NULL, 0);
	assert_int_equal(sysv_finish(&m, &e), 0);
	assert_int_equal(shmctl(id, IPC_STAT, &ds), 0);
	assert_int_equal(ds.shm_perm.mode, 0640 | 01000);
	shmdt(p);
	assert_int_equal(shmctl(id, IPC_STAT, &ds), -1);
	close(fd);
	shmctl(owner, IPC_RMID, NULL);
	ferry__sysv_segment__free_unpacked(o.sysv, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_in_the_way),
		cmocka_unit_test(test_marked),
	};

	if (unshare(CLONE_NEWIPC) < 0)
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
