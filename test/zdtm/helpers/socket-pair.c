/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a command whose output is one end of a pair of unix sockets, and writes what comes out of the other
 * end to a file:   socket-pair FILE CMD... */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char buf[4096];
	int pair[2], out = argc > 2 ? open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
	ssize_t n;

	if (out < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		perror("socket-pair");
		return 1;
	}
	if (fork() == 0) {
		dup2(pair[1], 1);
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	close(pair[1]);
	while ((n = read(pair[0], buf, sizeof(buf))) > 0)
		if (write(out, buf, n) != n)
			return 1;
	return 0;
}
