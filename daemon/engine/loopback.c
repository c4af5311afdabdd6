/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast would this machine move memory if the network were none?  The path of a migration in small: pages
 * are read through /proc/self/mem, checked and put into a stream, which goes over a TCP connection of the
 * loopback to a thread that checks them and writes them through /proc/self/mem.
 */
#include "engine/observe.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/util.h"
#include "stream/stream.h"

#define MEASURE_NS 200000000u
#define WARM_NS    30000000u
#define MEMORY     (64ul << 20) /* more than the caches hold */

struct sink {
	int sock, mem;
	uint8_t *to;
	int result;
	struct error error;
};

static int tcp_pair(int *ret_a, int *ret_b, struct error *e)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	cleanup_close int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cleanup_close int one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || one < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&a, &n) < 0 ||
	    connect(one, (struct sockaddr *)&a, sizeof(a)) < 0)
		return error_set(e, errno, "cannot make a connection over the loopback");
	*ret_b = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (*ret_b < 0)
		return error_set(e, errno, "cannot accept a connection over the loopback");
	*ret_a = TAKE_FD(one);
	return 0;
}

static int receive(struct sink *k)
{
	struct stream_in *in = NULL;
	struct record rec;
	int r = stream_in_socket(&in, k->sock, &k->error);

	while (r >= 0 && (r = stream_get(in, &rec, &k->error)) > 0)
		if (rec.is_pages && rec.data)
			r = pwrite_full(k->mem, rec.data, rec.run.length,
					(off_t)(uintptr_t)(k->to + rec.run.addr % MEMORY));
	stream_in_free(in);
	return r;
}

static void *sink_main(void *arg)
{
	struct sink *k = arg;

	k->result = receive(k);
	shutdown(k->sock, SHUT_RDWR); /* a sender that waits hears of it */
	return NULL;
}

/* Send for a while; *ret: bytes in the time after the first moments, *ret_ns: that time. */
static int send_pages(int sock, int mem, const uint8_t *from, uint64_t *ret, uint64_t *ret_ns,
		      struct error *e)
{
	struct stream_out *out = NULL;
	cleanup_free uint8_t *buffer = xmalloc(STREAM_MAX_RUN);
	struct page_run run = {.space = SPACE_PROCESS, .id = 1, .length = STREAM_MAX_RUN};
	uint64_t begin = now_ns(), t0 = 0, bytes = 0, now = begin;
	int r = stream_out_socket(&out, sock, e);

	while (r >= 0 && now - begin < WARM_NS + MEASURE_NS) {
		r = pread_full(mem, buffer, STREAM_MAX_RUN, (off_t)(uintptr_t)(from + run.addr % MEMORY));
		if (r >= 0)
			r = stream_put_pages(out, &run, buffer, e);
		run.addr += STREAM_MAX_RUN;
		now = now_ns();
		if (!t0 && now - begin >= WARM_NS)
			t0 = now;
		else if (t0)
			bytes += STREAM_MAX_RUN;
	}
	*ret = bytes;
	*ret_ns = t0 ? now - t0 : 0;
	if (r >= 0)
		r = stream_finish(out, e);
	stream_out_free(out);
	return r;
}

static int measure(struct sink *k, int sock, const uint8_t *from, uint64_t *ret, struct error *e)
{
	uint64_t bytes = 0, ns = 0;
	pthread_t thread;
	int r = pthread_create(&thread, NULL, sink_main, k);

	if (r)
		return error_set(e, r, "cannot start a thread");
	r = send_pages(sock, k->mem, from, &bytes, &ns, e);
	shutdown(sock, SHUT_WR);
	pthread_join(thread, NULL);
	if (k->result < 0)
		return error_is(&k->error) ? error_say(e, k->error.code, "%s", k->error.text)
					   : error_set(e, -k->result, "cannot receive over the loopback");
	if (r >= 0 && (!ns || !bytes))
		r = error_say(e, ETIMEDOUT, "the loopback is too slow to be measured");
	if (r < 0)
		return error_is(e) ? -e->code : error_set(e, -r, "cannot send over the loopback");
	*ret = (uint64_t)(bytes * 1e9 / ns);
	return 0;
}

int loopback_bandwidth(uint64_t *ret, struct error *e)
{
	struct sink k = {.error = ERROR_INIT};
	int sock = -1;
	uint8_t *memory = mmap(NULL, 2 * MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return error_set(e, errno, "no memory to measure with");
	memset(memory, 1, 2 * MEMORY);
	k.to = memory + MEMORY;
	k.mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	int r = k.mem < 0 ? error_set(e, errno, "open /proc/self/mem") : tcp_pair(&sock, &k.sock, e);

	if (r >= 0) {
		r = measure(&k, sock, memory, ret, e);
		close(sock);
		close(k.sock);
	}
	if (k.mem >= 0)
		close(k.mem);
	munmap(memory, 2 * MEMORY);
	return r;
}
