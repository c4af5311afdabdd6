/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the parts of asynchronous I/O (io_setup) share: aio_look.c (what only the kernel knows), aio.c
 * (capture), aio_rebuild.c. */
#include <linux/aio_abi.h>
#include <stdint.h>

#include "base/error.h"
#include "state/kind.h"

#define AIO_MAGIC 0xa10a10a1u

struct aio_ring { /* the first bytes of the mapping, as the kernel and libaio know them; events follow */
	uint32_t id;
	uint32_t nr;   /* events that fit */
	uint32_t head; /* of the program */
	uint32_t tail; /* of the kernel, which has a copy of it */
	uint32_t magic, compat, incompat, header_length;
};
_Static_assert(sizeof(struct aio_ring) == sizeof(struct io_event), "layout of the kernel");

struct aio_context { /* as the kernel has it */
	uint64_t addr, length;
	uint64_t max_requests, nr, tail;
	int64_t in_flight; /* requests */
};
/* All contexts of the process whose memory @mem_fd (/proc/PID/mem) is. malloc'ed. */
int aio_look(int mem_fd, struct aio_context **ret, size_t *ret_n, struct error *e);

/* How many events fit into a ring that was asked for @requests on a machine that can have @cpus CPUs. */
uint64_t aio_events(uint64_t requests, uint64_t cpus);
/* How many requests to ask for to get a ring for @events; @wanted is preferred. 0: there is no such number.
 */
uint64_t aio_requests(uint64_t events, uint64_t wanted, uint64_t cpus);

int aio_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m, struct error *e);
int aio_prepare(struct rebuild *r, const ProtobufCMessage *m, struct error *e);
