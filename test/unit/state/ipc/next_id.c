/* SPDX-License-Identifier: Apache-2.0 */
/* Things of System V IPC made under an id and by a user of one's choice; who makes them stays who he was. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "state/ipc/next_id.h"

#define ID  70000
#define KEY 0x5eed1234

static int make(void *ctx, key_t key)
{
	*(uid_t *)ctx = geteuid();
	return semget(key, 1, IPC_CREAT | IPC_EXCL | 0600);
}

/* In a child: what is tried here is of the whole process. */
static int try_it(void)
{
	struct error e = ERROR_INIT;
	struct semid_ds ds;
	uid_t maker = 0;
	int signal = 0;

	if (unshare(CLONE_NEWIPC) < 0)
		return 77;
	if (prctl(PR_SET_PDEATHSIG, SIGUSR2) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
		return 1;
	int id = next_id_get("sem", ID, 1234, 5678, KEY, make, &maker, &e);

	if (id != ID || maker != 1234 || semctl(id, 0, IPC_STAT, &ds) < 0)
		return 2;
	if (ds.sem_perm.cuid != 1234 || ds.sem_perm.cgid != 5678)
		return 3;
	if (geteuid() != getuid() || getegid() != getgid())
		return 4;
	if (prctl(PR_GET_PDEATHSIG, &signal) < 0 || signal != SIGUSR2)
		return 5;
	return prctl(PR_GET_DUMPABLE) == 1 ? 0 : 6;
}

static void made_as_another(void **state)
{
	int status;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid_t pid = fork();

	if (pid == 0)
		_exit(try_it());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(made_as_another)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
