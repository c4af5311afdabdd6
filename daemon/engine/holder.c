/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder: keeps userfaultfds open.
 *
 * If the last descriptor of a userfaultfd closed while pages are missing, they would read as zeros.  So there
 * is a second process that shares the table of descriptors of the one at work (CLONE_FILES): also what a fork
 * in the target puts there is held from the moment it exists.  It does nothing else.  When the process at
 * work has died, it closes everything that is no userfaultfd (locks and connections must not be held), and
 * stays until the file of state names another holder, or is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/pager.h"

static void last_to_go(void)
{
	static const char path[] = "/proc/self/oom_score_adj";
	static const char *const wanted[] = {"-1000", "-500", "0"};
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	for (size_t i = 0; fd >= 0 && i < ARRAY_SIZE(wanted); i++)
		if (write(fd, wanted[i], strlen(wanted[i])) > 0)
			return;
}

static bool is_one_of(int fd, const int *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == fd)
			return true;
	return false;
}

/* And shared memory of which pages are missing. */
static void keep_userfaultfds_only(const char *path)
{
	cleanup_free int *shared = NULL;
	size_t n_shared = pager_object_fds(path, &shared);
	cleanup_closedir DIR *d = opendir("/proc/self/fd");
	struct dirent *entry;
	int *others = NULL;
	size_t n = 0;

	while (d && (entry = readdir(d))) {
		cleanup_free char *link = NULL;
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] == '.' || fd == dirfd(d))
			continue;
		if (readlink_at(dirfd(d), entry->d_name, &link) == 0 &&
		    (!strcmp(link, "anon_inode:[userfaultfd]") || is_one_of(fd, shared, n_shared)))
			continue;
		others = xrealloc(others, (n + 1) * sizeof(*others));
		others[n++] = fd;
	}
	for (size_t i = 0; i < n; i++)
		close(others[i]);
	free(others);
}

static void __attribute__((noreturn)) hold(const char *path, int worker)
{
	static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGALRM, SIGPIPE};
	struct pollfd p = {.fd = worker, .events = POLLIN};

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	prctl(PR_SET_PDEATHSIG, 0);
	prctl(PR_SET_NAME, "ferry-hold");
	setsid();
	last_to_go();
	while (poll(&p, 1, -1) != 1)
		;
	keep_userfaultfds_only(path);
	while (pager_names_holder(path, getpid()))
		sleep(1);
	_exit(0);
}

pid_t holder_start(const char *path, struct error *e)
{
	int self = sys_pidfd_open(getpid(), 0);

	if (self < 0)
		return error_set(e, errno, "open a pidfd");
	fflush(NULL);
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES, 0, 0, 0, 0);

	if (pid == 0)
		hold(path, self);
	/* The pidfd stays open: the table is one. */
	return pid < 0 ? error_set(e, errno, "start the process that holds userfaultfds") : pid;
}

void holder_reap(pid_t pid)
{
	while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
}
