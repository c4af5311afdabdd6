/* SPDX-License-Identifier: Apache-2.0 */
/*
 * talker ADDRESS PORT garbage|silent|closes: listens, and treats who comes as its last argument says: with a
 * page of some other protocol, with nothing at all, or by hanging up.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char answer[] =
		"HTTP/1.1 400 Bad Request\r\nServer: something else\r\nContent-Length: 0\r\n\r\n";
	struct sockaddr_in a = {.sin_family = AF_INET};
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	signal(SIGPIPE, SIG_IGN);
	if (argc != 4 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1)
		return 2;
	a.sin_port = htons(atoi(argv[2]));
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) || listen(s, 5))
		return 1;
	for (;;) {
		int fd = accept(s, NULL, NULL);
		char buf[4096];

		if (fd < 0)
			return 1;
		if (!strcmp(argv[3], "silent"))
			continue;
		if (!strcmp(argv[3], "garbage")) {
			if (read(fd, buf, sizeof(buf)) > 0)
				for (int i = 0; i < 100; i++)
					if (write(fd, answer, sizeof(answer) - 1) < 0)
						break;
			shutdown(fd, SHUT_WR);
			while (read(fd, buf, sizeof(buf)) > 0)
				;
		}
		close(fd);
	}
}
