/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service manager does for a program:  service-manager DIR [-w USEC] [-j] [-l PORT] [-c PATH] CMD...
 *   its notifications, a line for each, into DIR/notify; -w: it expects one so often
 *   -j   its standard error output is the journal; what comes to the journal's own socket, into DIR/journal
 *   -l   a socket that listens at 127.0.0.1, -c a unix one (SOCK_SEQPACKET): handed over as systemd does
 * Ends with the exit code of the program.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static int unix_socket(const char *path, int type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, type, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	unlink(path);
	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0)
		die(path);
	return s;
}

static int tcp_socket(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0)
		die("TCP");
	return s;
}

/* All that is there now. A field's bytes that are no text become dots. */
static void copy(int from, FILE *to)
{
	static char b[65536];
	ssize_t n;

	while ((n = recv(from, b, sizeof(b), MSG_DONTWAIT)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			if (b[i] != '\n' && !isprint((unsigned char)b[i]))
				b[i] = '.';
		fprintf(to, "%.*s\n", (int)n, b);
		fflush(to);
	}
}

static FILE *create(const char *dir, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *f = fopen(path, "we");

	if (!f)
		die(path);
	return f;
}

static void set_stream(const char *dir)
{
	char path[256], text[64];
	struct stat st;

	snprintf(path, sizeof(path), "%s/stderr", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || dup2(fd, 2) < 0 || fstat(2, &st) < 0)
		die(path);
	close(fd);
	snprintf(text, sizeof(text), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", text, 1);
}

int main(int argc, char **argv)
{
	const char *dir = argv[1], *watchdog = NULL;
	int passed[2], n = 0, journal = -1, o, status;
	char path[256], number[16];

	if (argc < 3)
		return 2;
	while ((o = getopt(argc - 1, argv + 1, "+w:jl:c:")) != -1) {
		if (o == 'w')
			watchdog = optarg;
		else if (o == 'j')
			journal = unix_socket("/run/systemd/journal/socket", SOCK_DGRAM | SOCK_CLOEXEC);
		else if (o == 'l' && n < 2)
			passed[n++] = tcp_socket(atoi(optarg));
		else if (o == 'c' && n < 2)
			passed[n++] = unix_socket(optarg, SOCK_SEQPACKET);
		else
			return 2;
	}
	snprintf(path, sizeof(path), "%s/notify.sock", dir);
	int notify = unix_socket(path, SOCK_DGRAM | SOCK_CLOEXEC);
	FILE *told = create(dir, "notify"), *entries = create(dir, "journal");
	pid_t pid = fork();

	if (pid == 0) {
		/* Out of the way of 3 and 4 first. */
		for (int i = 0; i < n; i++)
			if (listen(passed[i], 64) < 0 ||
			    (passed[i] = fcntl(passed[i], F_DUPFD_CLOEXEC, 50)) < 0)
				die("listen");
		for (int i = 0; i < n; i++)
			dup2(passed[i], 3 + i);
		setenv("NOTIFY_SOCKET", path, 1);
		snprintf(number, sizeof(number), "%d", getpid());
		if (n)
			setenv("LISTEN_PID", number, 1);
		if (watchdog)
			setenv("WATCHDOG_USEC", watchdog, 1);
		if (watchdog)
			setenv("WATCHDOG_PID", number, 1);
		snprintf(number, sizeof(number), "%d", n);
		if (n)
			setenv("LISTEN_FDS", number, 1);
		if (journal >= 0)
			set_stream(dir);
		execv(argv[1 + optind], argv + 1 + optind);
		die(argv[1 + optind]);
	}
	for (;;) {
		struct pollfd p[] = {{notify, POLLIN, 0}, {journal, POLLIN, 0}};
		pid_t ended = waitpid(pid, &status, WNOHANG);

		copy(notify, told);
		if (journal >= 0)
			copy(journal, entries);
		if (ended == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		poll(p, 2, 50);
	}
}
