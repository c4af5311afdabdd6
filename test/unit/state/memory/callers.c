/* SPDX-License-Identifier: Apache-2.0 */
/* A call of another process that holds pages is known for as long as it lasts, and that it has ended too. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/memory/memory.h"

static char *memory;

/* Make its source missing, hand the userfaultfd over, and write to the parent. */
static void write_to_parent(int sock)
{
	struct uffdio_api api = {.api = UFFD_API};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	char *from = mmap(NULL, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {.range = {(uintptr_t)from, PAGE_SIZE_BYTES},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	struct iovec l = {from, 100}, r = {memory, 100};
	int64_t told[2] = {uffd, (intptr_t)from};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		told[0] = -1;
	if (write(sock, told, sizeof(told)) != sizeof(told) ||
	    process_vm_writev(getppid(), &l, 1, &r, 1, 0) != 100)
		_exit(1);
	for (;;)
		pause();
}

static void release(pid_t child, int uffd, uint64_t page)
{
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	int ours = (int)syscall(SYS_pidfd_getfd, pidfd, uffd, 0);
	struct uffdio_zeropage zero = {.range = {page, PAGE_SIZE_BYTES}};

	assert_true(ours >= 0);
	assert_int_equal(ioctl(ours, UFFDIO_ZEROPAGE, &zero), 0);
	close(ours);
	close(pidfd);
}

/* All else that runs on this machine has to be seen elsewhere, too. */
static uint64_t wait_gone(struct memory *m, uint64_t wanted)
{
	uint64_t gone;

	while ((gone = callers_gone(m, wanted)) < wanted)
		usleep(1000);
	return gone;
}

static void test_held(void **state)
{
	struct memory *m = memory_new();
	int pair[2];
	int64_t told[2];
	long nr;

	(void)state;
	assert_int_equal(pipe(pair), 0);
	uint64_t quiet = now_ns();

	assert_true(wait_gone(m, quiet) >= quiet);
	pid_t child = fork();

	if (child == 0)
		write_to_parent(pair[1]);
	assert_int_equal(read(pair[0], told, sizeof(told)), sizeof(told));
	if (told[0] < 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		memory_free(m);
		skip();
	}
	while (proc_syscall_read(child, child, &nr) < 0 || nr != SYS_process_vm_writev)
		usleep(1000);
	uint64_t held = now_ns();

	for (unsigned i = 0; i < 200; i++) {
		assert_true(callers_gone(m, held) < held);
		usleep(1000);
	}
	release(child, (int)told[0], (uint64_t)told[1]);
	assert_true(wait_gone(m, held) >= held);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(pair[0]);
	close(pair[1]);
	memory_free(m);
}

/* One that does nothing but run in user mode does not hold up anything for ever; nor does one that is gone.
 */
static void test_busy(void **state)
{
	struct memory *m = memory_new();
	pid_t child = fork();

	(void)state;
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (volatile int i = 0;; i++)
			;
	}
	uint64_t now = now_ns();

	assert_true(wait_gone(m, now) >= now);
	now = now_ns();
	callers_gone(m, now);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_true(wait_gone(m, now) >= now);
	memory_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_busy),
	};

	memory = mmap(NULL, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
