/* SPDX-License-Identifier: Apache-2.0 */
/* Writes what comes to a unix datagram socket to a file:   dgram-sink SOCKET FILE */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int out = argc == 3 ? open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644) : -1;
	char buf[4096];
	ssize_t n;

	if (out < 0 ||
	    (size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s", argv[1]) >= sizeof(a.sun_path) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(argv[1], 0777) < 0) {
		perror("dgram-sink");
		return 1;
	}
	while ((n = recv(fd, buf, sizeof(buf), 0)) >= 0)
		if (write(out, buf, n) != n)
			return 1;
	return 0;
}
