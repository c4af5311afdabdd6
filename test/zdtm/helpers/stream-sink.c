/* SPDX-License-Identifier: Apache-2.0 */
/* Writes what comes to a unix stream socket, by whom and on which connection, to a file:
 *   stream-sink SOCKET FILE
 * Each line becomes "NUMBER UID LINE"; the end of a connection "NUMBER UID end". */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void serve(int fd, FILE *out, int number)
{
	struct ucred who = {0};
	socklen_t n = sizeof(who);
	FILE *in = fdopen(fd, "r");
	char line[256];

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n);
	while (in && fgets(line, sizeof(line), in))
		fprintf(out, "%d %u %s", number, who.uid, line);
	fprintf(out, "%d %u end\n", number, who.uid);
	exit(0);
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), number = 0;
	FILE *out = argc == 3 ? fopen(argv[2], "ae") : NULL;

	if (!out || (size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s", argv[1]) >= sizeof(a.sun_path) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(argv[1], 0777) < 0 ||
	    listen(fd, 16) < 0) {
		perror("stream-sink");
		return 1;
	}
	setvbuf(out, NULL, _IOLBF, 0);
	for (;;) {
		int client = accept(fd, NULL, NULL);

		if (client < 0)
			return 1;
		number++;
		if (!fork()) {
			close(fd);
			serve(client, out, number);
		}
		close(client);
	}
}
