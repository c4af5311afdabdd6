/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that does not hold still: threads write at random with a check of what was there, move their pieces
 * (mremap), give them back (MADV_DONTNEED), unmap and map them anew, grow and shrink them, and fork children
 * that check their copies, write to them and fork again.  For every page the version that it must have is
 * known; a page that is lost, stale, or was given back and comes again, shows.
 */
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "zdtm.h"

#define THREADS 4
#define PIECES  24
#define PAGES   128UL /* of a piece */
#define SIZE    (PAGES * 4096)

struct piece {
	uint64_t *mem;
	uint64_t version[PAGES]; /* 0: must be zeros */
	uint64_t id;
};

static struct piece *pieces[THREADS];
static volatile uint64_t laps[THREADS];

static void check_page(const struct piece *p, size_t i)
{
	const uint64_t *page = p->mem + i * 512;
	uint64_t v = p->version[i], want = v ? p->id << 32 | i : 0;

	errno = 0;
	if (page[0] != want || page[1] != v || page[511] != (v ? want ^ v : 0))
		test_fail("piece %llu page %zu at %p holds %llx, %llu, %llx instead of version %llu",
			  (unsigned long long)p->id, i, (const void *)page, (unsigned long long)page[0],
			  (unsigned long long)page[1], (unsigned long long)page[511], (unsigned long long)v);
}

static void write_page(struct piece *p, size_t i)
{
	uint64_t *page = p->mem + i * 512, v = ++p->version[i];

	page[0] = p->id << 32 | i;
	page[1] = v;
	page[511] = page[0] ^ v;
}

static void touch(struct piece *p, uint64_t *state, int n)
{
	while (n--) {
		size_t i = test_random(state) % PAGES;

		check_page(p, i);
		write_page(p, i);
	}
}

static uint64_t *new_memory(void)
{
	return test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

static void move(struct piece *p)
{
	uint64_t *to = MUST(mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

	p->mem = MUST(mremap(p->mem, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
}

static void give_back(struct piece *p, size_t from, size_t n)
{
	MUST(madvise(p->mem + from * 512, n * 4096, MADV_DONTNEED));
	memset(p->version + from, 0, n * sizeof(p->version[0]));
}

static void map_anew(struct piece *p)
{
	MUST(munmap(p->mem, SIZE));
	p->mem = new_memory();
	memset(p->version, 0, sizeof(p->version));
}

/* The second half is cut off and comes back empty. */
static void shrink_and_grow(struct piece *p)
{
	MUST(mremap(p->mem, SIZE, SIZE / 2, 0));
	p->mem = MUST(mremap(p->mem, SIZE / 2, SIZE, MREMAP_MAYMOVE));
	memset(p->version + PAGES / 2, 0, sizeof(p->version) / 2);
}

/* In a process of its own: what it does to its memory is nobody else's. */
static void alone(struct piece *p, uint64_t state)
{
	for (int n = 0; n < 3; n++) {
		struct piece *one = &p[test_random(&state) % PIECES];

		touch(one, &state, 20);
		if (n == 1)
			move(one);
		if (n == 2)
			give_back(one, test_random(&state) % PAGES / 2, 9);
		touch(one, &state, 20);
	}
}

static void end_well(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0));
	CHECK_EQ(status, 0);
}

static void have_child(struct piece *p, uint64_t *state)
{
	pid_t pid = MUST(fork());

	if (pid) {
		end_well(pid);
		return;
	}
	alone(p, *state);
	pid = MUST(fork());
	alone(p, *state + 1);
	if (pid)
		end_well(pid);
	_exit(0);
}

/* With CHILDREN_LATER in the environment none before there is a file "children". */
static bool may_have_children(void)
{
	return !getenv("CHILDREN_LATER") || access(test_path("children"), F_OK) == 0;
}

static void once(struct piece *all, uint64_t *state)
{
	struct piece *p = &all[test_random(state) % PIECES];

	touch(p, state, 30);
	switch (test_random(state) % 24) {
	case 0:
		move(p);
		break;
	case 1:
		give_back(p, test_random(state) % PAGES / 2, 17);
		break;
	case 2:
		if (test_random(state) % 8 == 0)
			map_anew(p);
		break;
	case 3:
		if (test_random(state) % 8 == 0)
			shrink_and_grow(p);
		break;
	case 4:
		if (test_random(state) % 4 == 0 && may_have_children())
			have_child(all, state);
		break;
	default:
		break;
	}
}

static void *work(void *arg)
{
	size_t t = (size_t)arg;
	uint64_t state = 88172645463325252ULL + t * 7919;

	while (test_waiting()) {
		once(pieces[t], &state);
		laps[t]++;
		test_sleep_ms(1);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	test_init(argc, argv);
	for (size_t t = 0; t < THREADS; t++) {
		pieces[t] = test_map(sizeof(struct piece) * PIECES, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS);
		for (size_t k = 0; k < PIECES; k++) {
			struct piece *p = &pieces[t][k];

			*p = (struct piece){.mem = new_memory(), .id = t * PIECES + k + 1};
			for (size_t i = 0; i < PAGES; i++)
				write_page(p, i);
		}
	}
	for (size_t t = 0; t < THREADS; t++)
		MUST0(pthread_create(&threads[t], NULL, work, (void *)t));
	test_ready();
	for (size_t t = 0; t < THREADS; t++)
		MUST0(pthread_join(threads[t], NULL));
	for (size_t t = 0; t < THREADS; t++)
		for (size_t k = 0; k < PIECES; k++)
			for (size_t i = 0; i < PAGES; i++)
				check_page(&pieces[t][k], i);
	test_pass();
}
