/* SPDX-License-Identifier: Apache-2.0 */
/* Files of /proc and /sys: own, of a child, of a thread, of the system; they speak of the right process
 * afterwards. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "zdtm.h"

static volatile int *checked;

static void wait_until_checked(void)
{
	test_wait();
	while (!*checked)
		test_sleep_ms(1);
}

static void *sleeper(void *arg)
{
	*(volatile pid_t *)arg = gettid();
	wait_until_checked();
	return NULL;
}

static long number_of(int fd, const char *key)
{
	char buf[4096] = "", *at;

	CHECK(pread(fd, buf, sizeof(buf) - 1, 0) > 0, "a file of /proc cannot be read");
	at = strstr(buf, key);
	CHECK(at, "no %s in it", key);
	return strtol(at + strlen(key), NULL, 10);
}

int main(int argc, char **argv)
{
	volatile pid_t tid = 0;
	char path[64], buf[64], rest[64];
	int self, of_child, of_thread, dir, mem, meminfo, hostname, sys, sys_dir;
	uint64_t word = 0x1122334455667788, read_back;
	pthread_t thread;
	pid_t child;
	ssize_t n;

	test_init(argc, argv);
	checked = test_shared_flags(1);
	child = test_fork();
	if (!child) {
		wait_until_checked();
		_exit(4);
	}
	MUST0(pthread_create(&thread, NULL, sleeper, (void *)&tid));
	while (!tid)
		test_sleep_ms(1);
	self = MUST(open("/proc/self/status", O_RDONLY));
	mem = MUST(open("/proc/self/mem", O_RDWR));
	dir = MUST(open("/proc/self", O_RDONLY | O_DIRECTORY));
	snprintf(path, sizeof(path), "/proc/%d/status", child);
	of_child = MUST(open(path, O_RDONLY));
	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	of_thread = MUST(open(path, O_RDONLY));
	meminfo = MUST(open("/proc/meminfo", O_RDONLY));
	CHECK_EQ(read(meminfo, buf, 10), 10);
	hostname = MUST(open("/proc/sys/kernel/ostype", O_RDONLY));
	CHECK_EQ(read(hostname, buf, 2), 2);
	sys = MUST(open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY));
	CHECK((n = read(sys, rest, 3)) == 3, "sysfs");
	sys_dir = MUST(open("/sys/kernel", O_RDONLY | O_DIRECTORY));
	test_ready();
	test_wait();
	CHECK_EQ(number_of(self, "\nPid:"), getpid());
	CHECK_EQ(number_of(of_child, "\nPid:"), child);
	CHECK_EQ(number_of(of_child, "\nPPid:"), getpid());
	CHECK_EQ(number_of(of_thread, "\nPid:"), tid);
	CHECK_EQ(number_of(of_thread, "\nTgid:"), getpid());
	CHECK_EQ(number_of(MUST(openat(dir, "status", O_RDONLY)), "\nPid:"), getpid());
	CHECK_EQ(pread(mem, &read_back, 8, (uintptr_t)&word), 8);
	CHECK_EQ(read_back, word);
	word = 5;
	CHECK_EQ(pwrite(mem, &read_back, 8, (uintptr_t)&word), 8);
	CHECK_EQ(word, 0x1122334455667788);
	CHECK_EQ(lseek(meminfo, 0, SEEK_CUR), 10);
	CHECK(number_of(meminfo, "MemTotal:") > 0, "no memory");
	CHECK(read(hostname, buf, 10) >= 3 && !memcmp(buf, "nux", 3), "the rest of ostype");
	CHECK_EQ(lseek(sys, 0, SEEK_CUR), 3);
	CHECK(pread(sys, buf, 3, 0) == 3 && !memcmp(buf, rest, 3), "sysfs reads otherwise");
	MUST(faccessat(sys_dir, "mm", F_OK, 0));
	*checked = 1;
	test_reap(child, 4);
	MUST0(pthread_join(thread, NULL));
	CHECK(pread(of_child, buf, 10, 0) == -1 && errno == ESRCH,
	      "the status of the dead child can be read");
	test_pass();
}
