/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The contract between the host and the parasite: fixed-width types only, included by both sides; no libc.
 *
 * The region is one MAP_SHARED|MAP_ANONYMOUS, read-write-execute mapping made in the target by a single
 * injected mmap; the host maps the same memory through /proc/PID/map_files (no descriptor in the target,
 * nothing to inherit, no path):
 *
 *   +0        code, flat, entry at offset 0        (PB_CODE_MAX bytes)
 *   +code     struct pb_header
 *   ...       mailboxes and stacks, one per thread that was started; batches and their data ("arena")
 *
 * Offsets are from the start of the region, so both sides can follow them.
 *
 * A thread runs the parasite by being set to the entry with one argument, the address of its mailbox. It
 * waits on `seq` (futex), runs the batch at `batch`, stores `done` = seq, wakes the host, and waits again. It
 * never returns: the host takes the thread back with PTRACE_INTERRUPT while it waits. Waits have no timeout,
 * so the restart block of an interrupted call of the target stays as it is.
 *
 * Dead-host rule: the parasite also waits (futex_waitv) on `host` in the header, a robust futex owned by the
 * host's thread. When the host dies without taking the thread back, the kernel sets FUTEX_OWNER_DIED there:
 * the parasite then waits PB_GRACE_MS for a supervisor to seize it and, failing that, undoes what it can
 * (closes `undo_fds`, restores the signal mask and all registers from `frame`, which the host prepared) and
 * lets the target run on; only the region stays mapped. The way back is a jump, not rt_sigreturn, which would
 * forget how to restart a sleep.
 * A thread whose seccomp filter was suspended by the host must not make a call when the host is dead: the
 * filter may kill it. It looks before each entry, and waits for the supervisor in an endless loop
 * (PB_GRACE_SPINS turns). And it is taken back out of such a loop (PB_REST), not out of the wait for a batch:
 * a thread that was stopped in that call goes on with it, past the filter, when the host dies just then.
 */
#include <stdint.h>

#define PB_MAGIC       0x31425046u /* "FPB1" */
#define PB_VERSION     4u
#define PB_CODE_MAX    8192u
#define PB_GRACE_MS    2000u
#define PB_GRACE_SPINS (1ull << 31) /* some seconds */
#define PB_REST        0u

/* Fixed places in the code, offsets from its start. */
#define PB_OFF_ENTRY   0u  /* run batches: called with the address of a mailbox */
#define PB_OFF_SYSCALL 16u /* a system call instruction, followed by an endless loop */
#define PB_OFF_STUB    32u /* entry of the stub program: sleeps for ever */
#define PB_OFF_MAGIC   48u /* PB_MAGIC, PB_VERSION: the file belongs to this host */

enum pb_op {
	PB_OP_SYSCALL = 0, /* result = syscall(nr, args) */
	PB_OP_COPY = 1,    /* memcpy(args[0], args[1], args[2]) inside the process; result = bytes. For own
			      memory <-> arena. */
	PB_OP_STORE = 2, /* *(args[0]) = args[1], width args[2] bytes (4 or 8). To put a result into an arena
			    struct. */
	PB_OP_LOAD = 3,  /* result = *(args[0]), width args[1] bytes (4 or 8, zero extended) */
	PB_OP_ADD = 4,   /* result = args[0] + args[1] */
	PB_OP_REPEAT_EINTR = 5, /* like SYSCALL, repeated while the result is -EINTR */
};

enum pb_arg {
	PB_ARG_CONST = 0,  /* value as it is */
	PB_ARG_ARENA = 1,  /* value is an offset from the batch's data: becomes a pointer */
	PB_ARG_RESULT = 2, /* value is the index of an earlier entry: becomes its result */
};

enum pb_accept {
	PB_ACCEPT_NONNEG = 0, /* result >= 0 (as an errno range: not in -4095..-1) */
	PB_ACCEPT_ANY = 1,
	PB_ACCEPT_EQUAL = 2, /* result == accept_value */
	PB_ACCEPT_OR = 3,    /* not an error, or == -accept_value (an errno) */
};

#define PB_FLAG_OPENS_FD \
	1u /* the result is a descriptor to be closed if the host dies; a later close() forgets it */

struct pb_entry {
	uint16_t op;      /* enum pb_op */
	uint16_t accept;  /* enum pb_accept */
	uint8_t kinds[6]; /* enum pb_arg each */
	uint16_t flags;   /* PB_FLAG_* */
	int32_t nr;       /* system call number */
	int64_t accept_value;
	uint64_t args[6];
	int64_t result; /* written by the parasite */
};

struct pb_batch {
	uint32_t n_entries;
	uint32_t n_done; /* entries run; on failure the index of the one that failed */
	uint32_t failed; /* 1: entry n_done was not acceptable */
	uint32_t reserved;
	uint64_t entries; /* offset from region start: struct pb_entry[n_entries] */
	uint64_t data;    /* offset from region start of the batch's data */
	uint64_t data_size;
};

enum pb_host {
	PB_NO_HOST = 0, /* off: skeletons */
	PB_HOST = 1,
	PB_HOST_GUARDED =
		2, /* the thread has a seccomp filter, which the host suspends: no calls when it is dead */
};

#define PB_UNDO_FDS 8
struct pb_mailbox {
	uint32_t seq;  /* host increments and wakes: a batch is there */
	uint32_t done; /* parasite sets to seq and wakes */
	uint32_t host; /* is the dead-host rule on? enum pb_host */
	uint32_t reserved;
	uint64_t batch;      /* offset from region start of a struct pb_batch; PB_REST: none, no more calls */
	uint64_t frame;      /* address of the registers to go back to (arch_cure_frame), 0: none */
	uint64_t mask;       /* signal mask to go back to */
	uint64_t region;     /* address of the region in this process */
	uint32_t n_undo_fds; /* a supervisor reads from here on: see rescue_note_undo() */
	int32_t undo_fds[PB_UNDO_FDS];
	uint32_t reserved2;
};

struct pb_header {
	uint32_t magic, version;
	uint64_t size;      /* of the region, bytes */
	uint32_t host;      /* robust futex of the host: first word of a mutex that it holds */
	uint32_t mutex[15]; /* the rest of that mutex */
};

#ifdef __STDC_VERSION__
_Static_assert(sizeof(struct pb_entry) == 80, "pb_entry is part of the ABI");
_Static_assert(sizeof(struct pb_batch) == 40, "pb_batch is part of the ABI");
_Static_assert(sizeof(struct pb_mailbox) == 88, "pb_mailbox is part of the ABI");
_Static_assert(sizeof(struct pb_header) == 80, "pb_header is part of the ABI");
#endif
