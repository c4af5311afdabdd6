/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a redis server that is being moved about.  It fills the server, then reads and writes all the
 * time over several connections, one request outstanding on each, and knows for every key the last version
 * the server acknowledged.
 *
 * A request whose connection breaks is in doubt: it may have been carried out or not.  So each key has two
 * numbers, the last version acknowledged and the last one sent, and any version between them is right; the
 * first answer that names one of them raises the lower number.  A version below the acknowledged one is a
 * lost write, the one thing that must not happen.
 *
 * Signals: USR1 prints a line about the time since the last one; TERM or INT ends the load, checks every key,
 * prints a summary.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_ADDRS       8
#define MAX_CONNECTIONS 64
#define BATCH           64
#define KEY_LEN         12 /* "key:%08u" */
#define ANSWER_MS       10000
#define GIVE_UP_MS      30000

static struct {
	struct addrinfo *addr[MAX_ADDRS];
	unsigned addrs, keys, size, connections, write_percent, rate;
} opt = {.keys = 200000, .size = 512, .connections = 4, .write_percent = 50};

struct key {
	uint32_t acked, sent;
};

struct connection {
	unsigned first; /* owns keys first, first + connections, ... */
	unsigned to;    /* index of the address in use, or to try next */
	int fd;
	uint64_t random, last_answer;
	char *buffer;
	size_t have, cap;
	pthread_t thread;
	atomic_ullong requests, writes, reconnects, errors, lost, longest;
};

static struct key *keys;
static struct connection connections[MAX_CONNECTIONS];
static atomic_bool ending, failed;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void pause_ns(uint64_t ns)
{
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
	nanosleep(&t, NULL);
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* The value of a key says which key and version it is, followed by text that only this version has. */
static void make_value(char *out, unsigned key, uint32_t version)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-";
	uint64_t seed = (uint64_t)key << 32 | version, bits = 0;
	char head[32];
	size_t n = (size_t)snprintf(head, sizeof(head), "%08u:%010u:", key, version);

	memcpy(out, head, n);
	for (size_t i = n; i < opt.size; i++, bits >>= 6) {
		if ((i - n) % 10 == 0)
			bits = seed = mix(seed);
		out[i] = digits[bits & 63];
	}
}

static void complain(atomic_ullong *counter, const char *what, unsigned key)
{
	static atomic_uint said;

	atomic_fetch_add(counter, 1);
	if (atomic_fetch_add(&said, 1) < 10)
		fprintf(stderr, "load: key %u: %s\n", key, what);
}

static int dial(struct connection *c)
{
	const struct addrinfo *a = opt.addr[c->to];
	int on = 1, err = 0, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(err);

	if (fd < 0)
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, a->ai_addr, a->ai_addrlen)) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		if (errno != EINPROGRESS || poll(&p, 1, 500) != 1 ||
		    getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) || err) {
			close(fd);
			return -1;
		}
	}
	return fd;
}

/* Connect to whichever address answers, the one in use last. False when none did for a long time. */
static bool reconnect(struct connection *c)
{
	uint64_t start = now_ns();

	if (c->fd >= 0) {
		close(c->fd);
		c->fd = -1;
		c->to = (c->to + 1) % opt.addrs;
		atomic_fetch_add(&c->reconnects, 1);
	}
	c->have = 0;
	while ((c->fd = dial(c)) < 0) {
		if (now_ns() - start > GIVE_UP_MS * 1000000ULL) {
			complain(&c->errors, "no server answers at any address", 0);
			atomic_store(&failed, true);
			return false;
		}
		c->to = (c->to + 1) % opt.addrs;
		pause_ns(500000);
	}
	return true;
}

static bool wait_for(struct connection *c, short events)
{
	struct pollfd p = {.fd = c->fd, .events = events};
	int n;

	while ((n = poll(&p, 1, ANSWER_MS)) < 0 && errno == EINTR)
		;
	if (n == 0)
		complain(&c->errors, "no answer for a long time", 0);
	return n > 0;
}

static bool send_all(struct connection *c, const char *p, size_t n)
{
	while (n) {
		ssize_t done = send(c->fd, p, n, MSG_NOSIGNAL);
		if (done > 0) {
			p += done;
			n -= (size_t)done;
		} else if (done < 0 && errno == EAGAIN) {
			if (!wait_for(c, POLLOUT))
				return false;
		} else if (done == 0 || errno != EINTR) {
			return false;
		}
	}
	return true;
}

/* Have at least @n bytes in the buffer; false when the connection broke. */
static bool fill(struct connection *c, size_t n)
{
	while (c->have < n) {
		ssize_t got = recv(c->fd, c->buffer + c->have, c->cap - c->have, 0);
		if (got > 0)
			c->have += (size_t)got;
		else if (got < 0 && errno == EAGAIN) {
			if (!wait_for(c, POLLIN))
				return false;
		} else if (got == 0 || errno != EINTR)
			return false;
	}
	return true;
}

static void take(struct connection *c, size_t n)
{
	memmove(c->buffer, c->buffer + n, c->have - n);
	c->have -= n;
}

static bool read_line(struct connection *c, char *line, size_t size)
{
	char *end;

	while (!(end = memmem(c->buffer, c->have, "\r\n", 2)))
		if (c->have == c->cap || !fill(c, c->have + 1))
			return false;
	snprintf(line, size, "%.*s", (int)(end - c->buffer), c->buffer);
	take(c, (size_t)(end - c->buffer) + 2);
	return true;
}

/* Say where a value differs from what it claims to be: whole pages that are old look different from torn
 * writes. */
static void complain_damage(struct connection *c, unsigned key, const char *want, size_t size)
{
	size_t first = 0, last = opt.size, n = size < opt.size ? size : opt.size;
	char text[200];

	while (first < n && c->buffer[first] == want[first])
		first++;
	while (last > n || (last > first && c->buffer[last - 1] == want[last - 1]))
		last--;
	snprintf(text, sizeof(text),
		 "the value is damaged: %zu bytes, it says \"%.19s\" but differs from that in bytes %zu to "
		 "%zu; "
		 "%u was acknowledged, %u sent",
		 size, c->buffer, first, last, keys[key].acked, keys[key].sent);
	complain(&c->lost, text, key);
}

/* Is the value in the buffer one this key may have? */
static void judge(struct connection *c, unsigned key, size_t size)
{
	uint32_t version = (uint32_t)strtoul(c->buffer + 9, NULL, 10);
	char want[opt.size], text[120];

	make_value(want, key, version);
	if (size != opt.size || memcmp(want, c->buffer, size)) {
		complain_damage(c, key, want, size);
	} else if (version < keys[key].acked || version > keys[key].sent) {
		snprintf(text, sizeof(text), "version %u was acknowledged, the server has %u",
			 keys[key].acked, version);
		complain(&c->lost, text, key);
	} else {
		keys[key].acked = version;
	}
}

/* One answer. False: the connection broke (or can no longer be understood). */
static bool answer(struct connection *c, unsigned key, bool write, uint32_t version)
{
	char line[128];
	size_t size;
	uint64_t now;

	if (!read_line(c, line, sizeof(line)))
		return false;
	if (write && !strcmp(line, "+OK")) {
		keys[key].acked = version;
	} else if (!write && !strcmp(line, "$-1")) {
		if (keys[key].acked) {
			complain(&c->lost, "the key is gone", key);
		}
	} else if (!write && line[0] == '$' && (size = strtoul(line + 1, NULL, 10)) <= opt.size) {
		if (!fill(c, size + 2))
			return false;
		judge(c, key, size);
		take(c, size + 2);
	} else {
		complain(&c->errors, line, key);
		if (line[0] != '-')
			atomic_store(&failed, true);
	}
	now = now_ns();
	if (c->last_answer && now - c->last_answer > atomic_load(&c->longest))
		atomic_store(&c->longest, now - c->last_answer);
	c->last_answer = now;
	atomic_fetch_add(&c->requests, 1);
	atomic_fetch_add(&c->writes, write);
	return true;
}

static size_t make_request(char *out, unsigned key, bool write, uint32_t version)
{
	size_t n;

	if (!write)
		return (size_t)sprintf(out, "*2\r\n$3\r\nGET\r\n$%u\r\nkey:%08u\r\n", KEY_LEN, key);
	n = (size_t)sprintf(out, "*3\r\n$3\r\nSET\r\n$%u\r\nkey:%08u\r\n$%u\r\n", KEY_LEN, key, opt.size);
	make_value(out + n, key, version);
	memcpy(out + n + opt.size, "\r\n", 2);
	return n + opt.size + 2;
}

/* All keys of a connection in batches: the first writes, and the reads of the final check. */
static void *sweep(struct connection *c, bool write)
{
	char *out = malloc(BATCH * (opt.size + 128UL));
	unsigned key = c->first, step = opt.connections;

	while (out && key < opt.keys && !atomic_load(&failed)) {
		size_t len = 0;
		unsigned n = 0, done = 0;

		for (; n < BATCH && key + n * step < opt.keys; n++) {
			keys[key + n * step].sent += write;
			len += make_request(out + len, key + n * step, write, keys[key + n * step].sent);
		}
		if (send_all(c, out, len))
			while (done < n && answer(c, key + done * step, write, keys[key + done * step].sent))
				done++;
		key += done * step;
		if (done < n && !reconnect(c))
			break;
	}
	free(out);
	return NULL;
}

static void *sweep_writing(void *c)
{
	return sweep(c, true);
}

static void *sweep_reading(void *c)
{
	return sweep(c, false);
}

static void *load(void *arg)
{
	struct connection *c = arg;
	char out[opt.size + 128];
	unsigned mine = (opt.keys - c->first + opt.connections - 1) / opt.connections;
	uint64_t interval = opt.rate ? 1000000000ULL * opt.connections / opt.rate : 0, due = now_ns();

	c->last_answer = 0;
	while (!atomic_load(&ending) && !atomic_load(&failed)) {
		unsigned key;
		bool write;
		uint64_t now = now_ns();

		if (interval) {
			due = due + interval > now ? due + interval
						   : now; /* what was missed is not made up for */
			if (due > now)
				pause_ns(due - now);
		}
		c->random = mix(c->random);
		key = c->first + (unsigned)(c->random >> 32) % mine * opt.connections;
		write = (unsigned)(c->random & 0xffff) * 100 < 0x10000 * opt.write_percent;
		keys[key].sent += write;
		if (!send_all(c, out, make_request(out, key, write, keys[key].sent)) ||
		    !answer(c, key, write, keys[key].sent))
			if (!reconnect(c))
				break;
	}
	return NULL;
}

static void run(void *(*body)(void *))
{
	for (unsigned i = 0; i < opt.connections; i++)
		if (pthread_create(&connections[i].thread, NULL, body, &connections[i])) {
			fprintf(stderr, "load: cannot create a thread\n");
			exit(2);
		}
}

static void join(void)
{
	for (unsigned i = 0; i < opt.connections; i++)
		pthread_join(connections[i].thread, NULL);
}

struct total {
	unsigned long long requests, writes, reconnects, errors, lost, longest;
};

static struct total total(bool reset_longest)
{
	struct total t = {0};

	for (unsigned i = 0; i < opt.connections; i++) {
		struct connection *c = &connections[i];
		unsigned long long longest =
			reset_longest ? atomic_exchange(&c->longest, 0) : atomic_load(&c->longest);

		t.requests += atomic_load(&c->requests);
		t.writes += atomic_load(&c->writes);
		t.reconnects += atomic_load(&c->reconnects);
		t.errors += atomic_load(&c->errors);
		t.lost += atomic_load(&c->lost);
		t.longest = longest > t.longest ? longest : t.longest;
	}
	return t;
}

static void print_total(const char *what, const struct total *t, const struct total *from, double seconds)
{
	printf("%s seconds=%.3f requests=%llu writes=%llu reconnects=%llu errors=%llu lost=%llu "
	       "longest_ms=%.2f\n",
	       what, seconds, t->requests - from->requests, t->writes - from->writes,
	       t->reconnects - from->reconnects, t->errors - from->errors, t->lost - from->lost,
	       (double)t->longest / 1e6);
	fflush(stdout);
}

static void add_address(const char *text)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	char host[128], *port;

	snprintf(host, sizeof(host), "%s", text);
	port = strrchr(host, ':');
	if (port)
		*port++ = '\0';
	if (opt.addrs == MAX_ADDRS || getaddrinfo(host, port ? port : "6379", &hints, &opt.addr[opt.addrs])) {
		fprintf(stderr, "load: bad address '%s'\n", text);
		exit(2);
	}
	opt.addrs++;
}

static void usage(void)
{
	fprintf(stderr,
		"usage: ferry-demo-load [-k KEYS] [-s VALUE_BYTES] [-c CONNECTIONS] [-w WRITE_PERCENT]\n"
		"                       [-r REQUESTS_PER_SECOND] HOST[:PORT]...\n");
	exit(2);
}

static void parse(int argc, char **argv)
{
	int o;

	while ((o = getopt(argc, argv, "k:s:c:w:r:")) != -1) {
		unsigned value = o == '?' ? 0 : (unsigned)strtoul(optarg, NULL, 10);
		switch (o) {
		case 'k':
			opt.keys = value;
			break;
		case 's':
			opt.size = value;
			break;
		case 'c':
			opt.connections = value;
			break;
		case 'w':
			opt.write_percent = value;
			break;
		case 'r':
			opt.rate = value;
			break;
		default:
			usage();
		}
	}
	if (optind == argc || opt.size < 32 || opt.size > 65536 || !opt.connections ||
	    opt.connections > MAX_CONNECTIONS || opt.keys < opt.connections || opt.keys > 99999999)
		usage();
	while (optind < argc)
		add_address(argv[optind++]);
}

int main(int argc, char **argv)
{
	struct total before = {0}, at_mark = {0}, t;
	unsigned long long longest = 0;
	uint64_t start, mark, end;
	sigset_t set;
	int sig = 0;

	parse(argc, argv);
	keys = calloc(opt.keys, sizeof(*keys));
	for (unsigned i = 0; keys && i < opt.connections; i++) {
		size_t cap = opt.size + 1024UL;
		connections[i] = (struct connection){
			.first = i, .fd = -1, .random = mix(i), .cap = cap, .buffer = calloc(1, cap + 1)};
		if (!connections[i].buffer || !reconnect(&connections[i]))
			return 2;
	}
	if (!keys)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);

	start = now_ns();
	run(sweep_writing);
	join();
	t = total(true);
	print_total("filled", &t, &before, (double)(now_ns() - start) / 1e9);
	before = at_mark = t;

	start = mark = now_ns();
	run(load);
	while (!sigwait(&set, &sig) && sig == SIGUSR1) {
		/* A pause that lasts over the mark counts for the next one: it is known only when it ends. */
		t = total(true);
		end = now_ns();
		print_total("mark", &t, &at_mark, (double)(end - mark) / 1e9);
		longest = t.longest > longest ? t.longest : longest;
		at_mark = t;
		mark = end;
	}
	atomic_store(&ending, true);
	join();
	t = total(true);
	t.longest = t.longest > longest ? t.longest : longest;
	print_total("load", &t, &before, (double)(now_ns() - start) / 1e9);

	before = t;
	run(sweep_reading);
	join();
	t = total(false);
	printf("checked keys=%llu lost=%llu errors=%llu\n", t.requests - before.requests, t.lost, t.errors);
	return t.lost || t.errors || atomic_load(&failed) || t.requests - before.requests != opt.keys;
}
