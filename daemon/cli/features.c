/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/features.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include "base/error.h"
#include "base/util.h"
#include "procfs/pagemap.h"
#include "service/rundir.h"
#include "state/sockets/hold.h"
#include "track/backend.h"

static int no(char *why, size_t size, int code, const char *what)
{
	snprintf(why, size, "%s: %s", what, strerror(code));
	return -code;
}

/* --- a process to try things on ------------------------------------------------------------- */

static pid_t victim(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void end_victim(pid_t pid)
{
	int status;

	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	do
		status = 0; /* a stop that was not yet looked at comes first */
	while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status));
}

/* Seize a child, stop it, run @inside on it. */
static int on_stopped(unsigned long options, int (*inside)(pid_t pid), const char *what, char *why,
		      size_t size)
{
	pid_t pid = victim();
	int code = 0, status;

	if (pid < 0)
		return no(why, size, errno, "fork");
	if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
		code = errno;
	else if (inside && (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0 || waitpid(pid, &status, __WALL) < 0 ||
			    inside(pid) < 0))
		code = errno;
	end_victim(pid);
	return code ? no(why, size, code, what) : 0;
}

static int probe_ptrace(char *why, size_t size)
{
	return on_stopped(PTRACE_O_TRACESYSGOOD, NULL, "PTRACE_SEIZE", why, size);
}

static int probe_seccomp_suspend(char *why, size_t size)
{
	return on_stopped(PTRACE_O_SUSPEND_SECCOMP, NULL, "PTRACE_O_SUSPEND_SECCOMP", why, size);
}

static int get_rseq(pid_t pid)
{
	uint64_t conf[4];

	return (int)ptrace(0x420f /* PTRACE_GET_RSEQ_CONFIGURATION */, pid, sizeof(uint64_t) * 3, conf);
}

static int probe_rseq(char *why, size_t size)
{
	return on_stopped(PTRACE_O_TRACESYSGOOD, get_rseq, "PTRACE_GET_RSEQ_CONFIGURATION", why, size);
}

static int probe_pidfd_getfd(char *why, size_t size)
{
	pid_t pid = victim();
	int pidfd = sys_pidfd_open(pid, 0), fd = pidfd < 0 ? pidfd : sys_pidfd_getfd(pidfd, 1);

	end_victim(pid);
	if (pidfd >= 0)
		close(pidfd);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? no(why, size, -fd, "pidfd_getfd") : 0;
}

/* Make a child with the pid of one that has just ended. */
static int probe_set_tid(char *why, size_t size)
{
	pid_t pid = victim(), again = pid;
	struct clone_args a = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&again, .set_tid_size = 1};

	end_victim(pid);
	long r = syscall(SYS_clone3, &a, sizeof(a));

	if (r == 0)
		_exit(0);
	if (r < 0)
		return no(why, size, errno, "clone3 with set_tid");
	waitpid((pid_t)r, NULL, 0);
	return 0;
}

/* --- the caller itself ---------------------------------------------------------------------- */

static int missing_caps(const cap_value_t *needed, size_t n, char *why, size_t size)
{
	cap_t caps = cap_get_proc();
	char *missing = NULL;

	for (size_t i = 0; caps && i < n && !missing; i++) {
		cap_flag_value_t has = CAP_CLEAR;

		cap_get_flag(caps, needed[i], CAP_EFFECTIVE, &has);
		if (has != CAP_SET)
			missing = cap_to_name(needed[i]);
	}
	cap_free(caps);
	if (!missing)
		return 0;
	snprintf(why, size, "%s is missing: run as root", missing);
	cap_free((void *)missing);
	return -EPERM;
}

static int probe_privilege(char *why, size_t size)
{
	static const cap_value_t needed[] = {CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_KILL};

	return missing_caps(needed, ARRAY_SIZE(needed), why, size);
}

static int probe_limits(char *why, size_t size)
{
	static const cap_value_t needed[] = {CAP_SYS_RESOURCE};

	return missing_caps(needed, ARRAY_SIZE(needed), why, size);
}

static int probe_kcmp(char *why, size_t size)
{
	int r = sys_kcmp(getpid(), getpid(), KCMP_FILE, 0, 0);

	return r < 0 ? no(why, size, -r, "kcmp") : 0;
}

static int probe_mm_map(char *why, size_t size)
{
	unsigned bytes = 0;

	return prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &bytes, 0, 0) < 0 ? no(why, size, errno, "PR_SET_MM_MAP")
								      : 0;
}

static int probe_installed(const char *name, char *why, size_t size)
{
	struct error e = ERROR_INIT;
	char *path = NULL;

	if (paths_find(name, &path, &e) < 0) {
		snprintf(why, size, "%s", e.text);
		return -e.code;
	}
	free(path);
	return 0;
}

static int probe_parasite(char *why, size_t size)
{
	return probe_installed("parasite.bin", why, size);
}

static int probe_run_dir(char *why, size_t size)
{
	struct error e = ERROR_INIT;
	int fd = -1;

	if (rundir_lock(&fd, &e) < 0) {
		snprintf(why, size, "%s", e.text);
		return -e.code;
	}
	close(fd);
	return 0;
}

static int probe_tracking(char *why, size_t size)
{
	struct error e = ERROR_INIT;
	struct backend b = {0};
	char *reasons = NULL;
	int r = backend_open("auto", NULL, &b, &reasons, &e);

	if (r == 0)
		backend_close(&b);
	else
		snprintf(why, size, "%s", r > 0 && reasons ? reasons : e.text);
	free(reasons);
	return r == 0 ? 0 : r < 0 ? r : -ENOTSUP;
}

static int fdinfo_has(int fd, const char *key, char *why, size_t size)
{
	cleanup_free char *path = xasprintf("/proc/self/fdinfo/%d", fd);
	cleanup_free char *text = NULL;

	if (fd >= 0 && read_file(path, &text) >= 0 && strstr(text, key))
		return 0;
	snprintf(why, size, "fdinfo does not show \"%s\"", key);
	return -ENOTSUP;
}

static int probe_timerfd(char *why, size_t size)
{
	cleanup_close int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

	return fdinfo_has(fd, "clockid:", why, size);
}

static int probe_mnt_id(char *why, size_t size)
{
	cleanup_close int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

	return fdinfo_has(fd, "mnt_id:", why, size);
}

static int probe_ns_pid(char *why, size_t size)
{
	cleanup_free char *text = NULL;

	if (read_file("/proc/self/status", &text) >= 0 && strstr(text, "\nNSpid:"))
		return 0;
	snprintf(why, size, "/proc/self/status does not show NSpid");
	return -ENOTSUP;
}

static int skip_region(void *ctx, const struct scan_region *r)
{
	(void)ctx;
	(void)r;
	return 0;
}

static int probe_guard_pages(char *why, size_t size)
{
	struct scan_args a = {.end = PAGE_SIZE_BYTES, .category_mask = 1u << 8, .return_mask = 1u << 8};
	cleanup_close int fd = pagemap_open(getpid());
	int r = fd < 0 ? fd : pagemap_scan(fd, &a, skip_region, NULL);

	return r < 0 ? no(why, size, -r, "PAGEMAP_SCAN for guard pages") : 0;
}

static int probe_tcp(char *why, size_t size)
{
	struct hold *h = NULL;
	struct error e = ERROR_INIT;
	int on = 1;
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cleanup_free char *name = xasprintf("ferry-check-%d", getpid());

	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
		return no(why, size, errno, "repair mode of TCP");
	int r = hold_new(&h, name, 0, &e);

	hold_free(h);
	return r < 0 ? no(why, size, -r, "nf_tables") : 0;
}

const struct feature features[] = {
	{"privilege", "capabilities to take and rebuild processes", true, true, probe_privilege},
	{"parasite", "the code that works inside of a target", true, true, probe_parasite},
	{"ptrace", "stop processes and look into them", true, true, probe_ptrace},
	{"kcmp", "tell shared descriptors from equal ones", true, true, probe_kcmp},
	{"set_tid", "rebuild processes with their pids", true, true, probe_set_tid},
	{"mm_map", "rebuild brk, arguments and environment", true, true, probe_mm_map},
	{"pidfd_getfd", "fetch descriptors of a process", true, true, probe_pidfd_getfd},
	{"mem_dirty_track", "copy memory while the target runs", false, true, probe_tracking},
	{"seccomp_suspend", "targets with a seccomp filter", false, true, probe_seccomp_suspend},
	{"get_rseq_conf", "restartable sequences", false, true, probe_rseq},
	{"pagemap_scan_guard_pages", "guard regions", false, true, probe_guard_pages},
	{"limits", "raise resource limits again that the target has lowered", false, true, probe_limits},
	{"network_lock_nftables", "established TCP connections", false, true, probe_tcp},
	{"run-dir", "status, cancel and pre-dump chains", false, true, probe_run_dir},
	{"timerfd", "timer descriptors", false, false, probe_timerfd},
	{"mnt_id", "mounts of open files", false, false, probe_mnt_id},
	{"ns_pid", "pids in nested namespaces", false, false, probe_ns_pid},
	{"seccomp_filters", "rebuild seccomp filters", false, false, probe_seccomp_suspend},
	{"sk_unix_file", "files of unix sockets", false, false, probe_sk_unix_file},
	{"sockopt_buf_lock", "which buffer sizes a program has set", false, false, probe_sockopt_buf_lock},
	{"ipv6_freebind", "sockets bound to addresses that are not there", false, false, probe_ipv6_freebind},
	{"memfd_hugetlb", "memfds of huge pages", false, false, probe_memfd_hugetlb},
	{"uffd", "faults handled from outside", false, false, probe_uffd},
	{"fdinfo_lock", "locks of open files", false, false, probe_fdinfo_lock},
	{NULL, NULL, false, false, NULL},
};

bool feature_is_foreign(const char *name)
{
	static const char all[] = " userns uffd-noncoop aio_remap timens cgroupns "
				  "ns_get_userns ns_get_parent "
				  "newifindex nftables has_ipt_legacy "
				  "move_mount_set_group pidfd_store "
				  "tun tun_ns net_diag_raw "
				  "link_nsid loginuid autofs compat_cr "
				  "overlayfs_maps ";
	cleanup_free char *word = xasprintf(" %s ", name);

	return strstr(all, word);
}
