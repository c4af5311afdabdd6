/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Ways of changing memory.  A way is a program of its own: `stress-target WAY` changes its memory in this one
 * way for ever, `stress-target --helper WAY PID` is a process outside of the target that takes part in it.
 * The driver (stress.c) follows the target in rounds into a copy.
 *
 * Both sides talk by a page at a fixed address of the target (or helper), which the driver reads and writes
 * through /proc/PID/mem: no descriptor, no shared memory and no signal connects them.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONTROL_ADDR  0x10000000000ull
#define CONTROL_MAGIC 0x66657272792d7374ull
#define MAX_WRITERS   8
#define STRESS_FILE   "/dev/shm/ferry-stress-%d" /* of the target's pid; the driver removes it */
#define PAGE          4096ul

struct control {
	uint64_t magic; /* set when the target is ready */
	uint32_t writers;
	int32_t fd; /* a descriptor the helper wants, or -1 */
	_Atomic uint64_t steps[MAX_WRITERS];
	_Atomic uint32_t pause, paused; /* of a helper */
	char skip[128];                 /* why this way cannot be had here */
	char died[128];                 /* a call that must not fail has failed */
};

/* What the driver has to know of a way. */
#define WAY_HELPER  (1u << 0) /* has a process outside of the tree */
#define WAY_REFUSED (1u << 1) /* ferry refuses such a target (see `refusal`) */
#define WAY_BLIND   (1u << 2) /* a backend alone cannot see it: the engine has the cure */
#define WAY_ENGINE                                                                                           \
	(1u << 3)              /* several processes or programs: makes no sense for one session of a backend \
				*/
#define WAY_STATE    (1u << 4) /* what is changed is only found when all state is captured */
#define WAY_PRESSURE (1u << 5) /* wants a cgroup with little memory, and swap */
#define WAY_SURE     (1u << 6) /* some frozen passes must do without comparing the shared memory */
#define WAY_SLOW     (1u << 7) /* a step of its helper takes many rounds: they do not wait for it */

struct way_info {
	const char *name, *about;
	unsigned flags;
	const char *refusal; /* what the error says */
};
extern const struct way_info way_infos[]; /* NULL name at the end */
const struct way_info *way_info(const char *name);

/* --- of the target -------------------------------------------------------------------------------- */

struct way {
	const char *name;
	unsigned writers;              /* threads; writer 0 is the main thread */
	void (*setup)(void);           /* before ready; may call skip() */
	void (*step)(unsigned writer); /* over and over */
	void (*helper)(pid_t target);  /* a step of the helper */
};
extern const struct way ways_stores[], ways_kernel[], ways_rings[], ways_others[], ways_shared[], ways_sure[],
	ways_maps[], ways_advice[], ways_hugetlb[], ways_procs[], ways_pressure[];

#define CONTROL ((struct control *)CONTROL_ADDR)

void skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* A call that must not fail. */
long must(long r, const char *what);
#define MUST(call) must((long)(call), #call)

#define AREA_SIZE  (4ul << 20)
#define AREA_PAGES (AREA_SIZE / PAGE)
/* A place for area @i, at an address that the helper knows too, aligned to huge pages, far from the others.
 */
char *area_at(unsigned i);
/* Map area @i there. @fd -1: anonymous. */
char *area(unsigned i, int flags, int fd, size_t size);
/* Random numbers of this thread. */
uint32_t rnd(void);
/* A random page of an area; each one once in a long while, so that a write that was lost stays lost. */
char *next_page(char *area, size_t size);
/* A memfd of @size with content. */
int content_memfd(const char *name, size_t size);
/* Bytes that were not there before. */
void scribble(char *p, size_t n);
void pause_us(unsigned us);
const char *program_path(void); /* of this program: a file with enough bytes to read */
