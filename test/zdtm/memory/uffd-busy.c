/* SPDX-License-Identifier: Apache-2.0 */
/* Threads in system calls that wait for pages all the time, or for an event to be read, with a slow monitor.
 */
#include <pthread.h>

#include "uffd.h"

#define PAGES   64
#define THREADS 3

static char *mem;
static int uffd, zero;
static volatile int stop;

static void *reader(void *arg)
{
	char *own = mem + (long)arg * PAGES * PAGE;

	for (unsigned n = 0; test_waiting(); n++) {
		char *page = own + n % PAGES * PAGE;

		CHECK_EQ(read(zero, page, PAGE), PAGE);
		CHECK_EQ(page[17], 0);
		MUST(madvise(page, PAGE, MADV_DONTNEED));
	}
	return NULL;
}

/* A page cannot be given while an event is unread that tells of a change: then it is given later. */
static void *monitor(void *arg)
{
	struct pollfd pfd = {.fd = uffd, .events = POLLIN};
	void *owed[THREADS];
	int n = 0;
	struct uffd_msg msg;

	(void)arg;
	while (!stop) {
		if (poll(&pfd, 1, n ? 1 : 10) == 1 && read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
			test_sleep_ms(5);
			if (msg.event == UFFD_EVENT_PAGEFAULT && n < THREADS)
				owed[n++] = (void *)(uintptr_t)(msg.arg.pagefault.address & ~(PAGE - 1));
		}
		for (int i = 0; i < n;) {
			errno = 0;
			if (uffd_try_copy(uffd, owed[i], 1) && errno == EAGAIN) {
				i++;
				continue;
			}
			CHECK(errno == 0 || errno == EEXIST, "UFFDIO_COPY");
			owed[i] = owed[--n];
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS], m;

	test_init(argc, argv);
	zero = MUST(open("/dev/zero", O_RDONLY));
	uffd = uffd_new(O_NONBLOCK, UFFD_FEATURE_EVENT_REMOVE);
	mem = test_map(THREADS * PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	uffd_register(uffd, mem, THREADS * PAGES, UFFDIO_REGISTER_MODE_MISSING);
	MUST0(pthread_create(&m, NULL, monitor, NULL));
	for (long i = 0; i < THREADS; i++)
		MUST0(pthread_create(&t[i], NULL, reader, (void *)i));
	test_ready();
	for (int i = 0; i < THREADS; i++)
		MUST0(pthread_join(t[i], NULL));
	stop = 1;
	MUST0(pthread_join(m, NULL));
	test_pass();
}
