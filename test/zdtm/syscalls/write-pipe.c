/* SPDX-License-Identifier: Apache-2.0 */
/* write() to a full pipe, stopped half-way: every byte arrives once and in order. */
#include <pthread.h>

#include "zdtm.h"

#define SIZE (300 << 10)

static int fd[2];
static char data[SIZE], got[SIZE];

static void *thread(void *arg)
{
	size_t done = 0;
	ssize_t n;

	while (done < SIZE) {
		n = MUST(write(fd[1], data + done, SIZE - done));
		done += n;
	}
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	size_t done = 0;
	ssize_t n;

	test_init(argc, argv);
	MUST(pipe(fd));
	test_fill(data, SIZE, 3);
	MUST0(pthread_create(&t, NULL, thread, NULL));
	test_sleep_ms(30);
	test_ready();
	test_wait();
	while (done < SIZE && (n = MUST(read(fd[0], got + done, SIZE - done))) > 0)
		done += n;
	MUST0(pthread_join(t, NULL));
	test_check_fill(got, SIZE, 3, "what came through the pipe");
	test_pass();
}
