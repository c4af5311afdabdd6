/* SPDX-License-Identifier: Apache-2.0 */
/* A session on a pseudo-terminal: who has it, foreground and background, ^C, job control, hang-up. */
#define _XOPEN_SOURCE 600
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "zdtm.h"

static volatile int
	*flags; /* 0 to 2: pids; 3: ^C in the foreground, 4: in the shell, 5: hang-up of the shell */

static void on_int(int sig)
{
	(void)sig;
	flags[getpid() == flags[0] ? 4 : 3]++;
}

static void on_hup(int sig)
{
	(void)sig;
	flags[5]++;
}

static void wait_for(volatile int *flag)
{
	for (int i = 0; i < 10000 && !*flag; i++)
		test_sleep_ms(1);
	CHECK(*flag, "flag %d was not set", (int)(flag - flags));
}

static _Noreturn void child(int which)
{
	MUST(setpgid(0, 0));
	flags[which] = getpid();
	for (;;)
		pause();
}

static _Noreturn void shell(const char *name)
{
	pid_t front, back;
	int tty, status;

	MUST(setsid());
	tty = MUST(open(name, O_RDWR)); /* takes it */
	MUST((intptr_t)signal(SIGINT, on_int));
	MUST((intptr_t)signal(SIGHUP, on_hup));
	MUST((intptr_t)signal(SIGTTOU, SIG_IGN));
	front = test_fork();
	if (!front)
		child(1);
	back = test_fork();
	if (!back)
		child(2);
	wait_for(&flags[1]);
	wait_for(&flags[2]);
	MUST(tcsetpgrp(tty, front));
	flags[0] = getpid();
	test_wait();
	CHECK_EQ(tcgetpgrp(tty), front);
	CHECK_EQ(tcgetsid(tty), getpid());
	CHECK_EQ(tcgetpgrp(MUST(open("/dev/tty", O_RDWR))), front);
	wait_for(&flags[3]);
	CHECK_EQ(flags[4], 0);
	/* One in the background that reads stops. */
	MUST(kill(back, SIGUSR1));
	CHECK_EQ(waitpid(back, &status, WUNTRACED), back);
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN, "status 0x%x", status);
	MUST(tcsetpgrp(tty, getpgrp()));
	flags[6] = 1;
	wait_for(&flags[4]);
	flags[7] = 1;
	wait_for(&flags[5]);
	kill(front, SIGKILL);
	kill(back, SIGKILL);
	_exit(9);
}

static void read_tty(int sig)
{
	char c;

	(void)sig;
	(void)!read(MUST(open("/dev/tty", O_RDONLY)), &c, 1);
}

int main(int argc, char **argv)
{
	int master;
	pid_t pid;

	test_init(argc, argv);
	flags = test_shared_flags(8);
	MUST((intptr_t)signal(SIGUSR1, read_tty));
	master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
	MUST(unlockpt(master));
	pid = test_fork();
	if (!pid) {
		char name[64];

		snprintf(name, sizeof(name), "%s", ptsname(master));
		close(master);
		shell(name);
	}
	wait_for(&flags[0]);
	test_ready();
	test_wait();
	test_sleep_ms(20);
	CHECK_EQ(write(master, "\x03", 1), 1);
	wait_for(&flags[6]);
	CHECK_EQ(write(master, "\x03", 1), 1);
	wait_for(&flags[7]);
	close(master);
	test_reap(pid, 9);
	test_pass();
}
