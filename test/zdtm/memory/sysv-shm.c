/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V segments: attached twice, by two processes, read-only, in part; one with a key, one marked for
 * removal, one locked, one of another user.
 */
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "zdtm.h"

#define SIZE (16 * 4096 + 100) /* ends inside a page */
#define KEY  0x5eed0001

static int new_segment(key_t key, int mode, char **ret)
{
	int id = MUST(shmget(key, SIZE, IPC_CREAT | IPC_EXCL | mode));

	*ret = shmat(id, NULL, 0);
	CHECK(*ret != (void *)-1, "shmat");
	test_fill(*ret, SIZE / 8 * 8, id);
	return id;
}

static void check_same(int id, const struct shmid_ds *was, const char *what)
{
	struct shmid_ds now;

	if (shmctl(id, IPC_STAT, &now))
		test_fail("%s: no segment %d any more", what, id);
	errno = 0;
	CHECK(now.shm_segsz == was->shm_segsz, "%s: size", what);
	CHECK(now.shm_perm.__key == was->shm_perm.__key, "%s: key 0x%x, was 0x%x", what, now.shm_perm.__key,
	      was->shm_perm.__key);
	CHECK(now.shm_perm.mode == was->shm_perm.mode, "%s: mode 0%o, was 0%o", what, now.shm_perm.mode,
	      was->shm_perm.mode);
	CHECK(now.shm_perm.uid == was->shm_perm.uid && now.shm_perm.gid == was->shm_perm.gid, "%s: owner",
	      what);
	CHECK(now.shm_perm.cuid == was->shm_perm.cuid && now.shm_perm.cgid == was->shm_perm.cgid,
	      "%s: creator", what);
	CHECK(now.shm_nattch == was->shm_nattch, "%s: attached %lu times, was %lu", what, now.shm_nattch,
	      was->shm_nattch);
}

int main(int argc, char **argv)
{
	char *keyed, *again, *ro, *dest, *locked, *parts, *owned;
	struct shmid_ds was[5];
	int id[5];
	pid_t child;

	test_init(argc, argv);
	id[0] = new_segment(KEY, 0640, &keyed);
	again = shmat(id[0], NULL, 0);
	ro = shmat(id[0], NULL, SHM_RDONLY);
	id[1] = new_segment(IPC_PRIVATE, 0600, &dest);
	MUST(shmctl(id[1], IPC_RMID, NULL));
	id[2] = new_segment(IPC_PRIVATE, 0666, &locked);
	MUST(shmctl(id[2], SHM_LOCK, NULL));
	id[3] = new_segment(IPC_PRIVATE, 0600, &parts);
	MUST(munmap(parts + 2 * 4096, 2 * 4096));
	MUST(mprotect(parts + 8 * 4096, 4096, PROT_READ));
	/* Other memory where a part of the segment was. */
	CHECK(mmap(parts + 3 * 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		   -1, 0) == parts + 3 * 4096,
	      "mmap");
	parts[3 * 4096] = 'o';
	/* A whole one with its middle protected: detached in one call all the same. */
	MUST(seteuid(1000));
	id[4] = new_segment(IPC_PRIVATE, 0600, &owned);
	MUST(seteuid(0));
	struct shmid_ds set = {.shm_perm = {.uid = 5, .gid = 6, .mode = 0604}};
	MUST(shmctl(id[4], IPC_SET, &set));
	MUST(mprotect(owned + 4096, 4096, PROT_READ));
	child = test_fork();
	if (child == 0) {
		test_wait();
		while (((volatile char *)keyed)[9] != 'p')
			test_sleep_ms(1);
		keyed[10] = 'c';
		CHECK_EQ(dest[4096], ((char *)dest)[4096]);
		_exit(7);
	}
	for (int i = 0; i < 5; i++)
		MUST(shmctl(id[i], IPC_STAT, &was[i]));
	test_ready();
	test_wait();
	const char *names[] = {"with a key", "marked for removal", "locked", "in parts", "of another user"};
	for (int i = 0; i < 5; i++)
		check_same(id[i], &was[i], names[i]);
	test_check_fill(keyed, SIZE / 8 * 8, id[0], "keyed");
	test_check_fill(dest, SIZE / 8 * 8, id[1], "marked for removal");
	test_check_fill(locked, SIZE / 8 * 8, id[2], "locked");
	test_check_fill(owned, SIZE / 8 * 8, id[4], "of another user");
	CHECK_EQ(parts[3 * 4096], 'o');
	ro = ro == (void *)-1 ? NULL : ro;
	CHECK(mprotect(ro, 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
	      "the read-only attachment can be written");
	again[9] = 'p';
	test_reap(child, 7);
	CHECK_EQ(ro[10], 'c');
	MUST(shmdt(again));
	MUST(shmdt(ro));
	MUST(shmdt(keyed));
	MUST(shmctl(id[0], IPC_STAT, &was[0]));
	CHECK_EQ(was[0].shm_nattch, 0);
	CHECK_EQ(MUST(shmget(KEY, 0, 0)), id[0]);
	MUST(shmdt(dest));
	CHECK(shmctl(id[1], IPC_STAT, &was[1]) == -1, "the segment marked for removal is still there");
	MUST(shmdt(owned));
	MUST(shmctl(id[4], IPC_STAT, &was[4]));
	CHECK_EQ(was[4].shm_nattch, 0);
	test_pass();
}
