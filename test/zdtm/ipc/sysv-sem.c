/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V semaphores: values, who used them last, owner and mode, and what ends of processes undo: of the
 * root, of a child with threads, small and as large as can be.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#include "zdtm.h"

#define KEY  0x5eed0011
#define MANY 9
#define MOST 32767

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

static void op(int id, int number, int by, int flags)
{
	struct sembuf b = {(unsigned short)number, (short)by, (short)(flags | IPC_NOWAIT)};

	if (semop(id, &b, 1) < 0)
		test_fail("semop of %d by %d", number, by);
}

static int value(int id, int number)
{
	return MUST(semctl(id, number, GETVAL));
}

static void *idle(void *p)
{
	test_wait();
	return p;
}

static void expect(int id, const int *want, const char *when)
{
	for (int i = 0; i < MANY; i++) {
		int got = value(id, i);

		errno = 0;
		CHECK(got == want[i], "%s: semaphore %d is %d, not %d", when, i, got, want[i]);
	}
}

static void check_owner(int id, const struct semid_ds *was)
{
	struct semid_ds now;

	MUST(semctl(id, 0, IPC_STAT, (union semun){.buf = &now}));
	CHECK_EQ(now.sem_perm.__key, was->sem_perm.__key);
	CHECK_EQ(now.sem_perm.uid, was->sem_perm.uid);
	CHECK_EQ(now.sem_perm.gid, was->sem_perm.gid);
	CHECK_EQ(now.sem_perm.cuid, was->sem_perm.cuid);
	CHECK_EQ(now.sem_perm.mode, was->sem_perm.mode);
	CHECK_EQ(now.sem_nsems, was->sem_nsems);
}

int main(int argc, char **argv)
{
	volatile int *flags;
	struct semid_ds was[2];
	int id, other;
	pid_t child;

	test_init(argc, argv);
	flags = test_shared_flags(2);
	id = MUST(semget(KEY, MANY, IPC_CREAT | IPC_EXCL | 0640));
	op(id, 0, 5, 0);
	op(id, 1, 7, SEM_UNDO);
	op(id, 2, 10, 0);
	op(id, 2, -3, SEM_UNDO);
	op(id, 3, MOST, SEM_UNDO);
	op(id, 4, MOST, 0);
	op(id, 4, -MOST, SEM_UNDO);
	op(id, 5, 9, SEM_UNDO);
	op(id, 5, -9, 0); /* more to undo than there is */
	op(id, 8, 1, SEM_UNDO);
	op(id, 8, -1, SEM_UNDO); /* nothing */
	MUST(seteuid(1000));
	other = MUST(semget(IPC_PRIVATE, 300, 0600));
	MUST(seteuid(0));
	struct semid_ds set = {.sem_perm = {.uid = 5, .gid = 6, .mode = 0604}};
	MUST(semctl(other, 0, IPC_SET, (union semun){.buf = &set}));
	op(other, 299, 77, 0);
	child = test_fork();
	if (child == 0) {
		pthread_t t;

		op(id, 6, 4, SEM_UNDO);
		op(id, 2, 100, SEM_UNDO);
		op(other, 150, 2, SEM_UNDO);
		MUST0(pthread_create(&t, NULL, idle, NULL));
		flags[0] = 1;
		test_wait();
		MUST0(pthread_join(t, NULL));
		while (!flags[1])
			test_sleep_ms(1);
		_exit(7);
	}
	while (!flags[0])
		test_sleep_ms(1);
	MUST(semctl(id, 0, IPC_STAT, (union semun){.buf = &was[0]}));
	MUST(semctl(other, 0, IPC_STAT, (union semun){.buf = &was[1]}));
	test_ready();
	test_wait();
	check_owner(id, &was[0]);
	check_owner(other, &was[1]);
	CHECK_EQ(MUST(semget(KEY, 0, 0)), id);
	expect(id, (const int[MANY]){5, 7, 107, MOST, 0, 0, 4, 0, 0}, "moved");
	CHECK_EQ(value(other, 299), 77);
	CHECK_EQ(value(other, 150), 2);
	CHECK_EQ(value(other, 0), 0);
	CHECK_EQ(MUST(semctl(id, 0, GETPID)), getpid());
	CHECK_EQ(MUST(semctl(id, 6, GETPID)), child);
	CHECK_EQ(MUST(semctl(id, 5, GETPID)), getpid());
	CHECK_EQ(MUST(semctl(id, 7, GETPID)), 0);
	flags[1] = 1;
	test_reap(child, 7);
	expect(id, (const int[MANY]){5, 7, 7, MOST, 0, 0, 0, 0, 0}, "the child has ended");
	CHECK_EQ(value(other, 150), 0);
	/* What happens at our end happens here as well. */
	MUST(unshare(CLONE_SYSVSEM));
	expect(id, (const int[MANY]){5, 0, 10, 0, MOST, 0, 0, 0, 0}, "undone");
	MUST(semctl(id, 0, IPC_RMID));
	MUST(semctl(other, 0, IPC_RMID));
	test_pass();
}
