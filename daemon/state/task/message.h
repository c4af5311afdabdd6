/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Small helpers for building messages that protobuf_c_message_free_unpacked(m, NULL) can free. */
#include <string.h>
#include <protobuf-c/protobuf-c.h>

#include "base/util.h"

/* MESSAGE_NEW(Ferry__Regs, ferry__regs) */
#define MESSAGE_NEW(type, prefix)                       \
	({                                              \
		type *message_ = xmalloc(sizeof(type)); \
		prefix##__init(message_);               \
		message_;                               \
	})

static inline ProtobufCBinaryData message_bytes(const void *p, size_t n)
{
	return (ProtobufCBinaryData){.len = n, .data = n ? xmemdup(p, n) : NULL};
}

static inline void message_freep(void *p)
{
	ProtobufCMessage *m = *(ProtobufCMessage **)p;

	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
}
#define cleanup_message __attribute__((cleanup(message_freep)))
