/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* An image as readable text or JSON, by reflection over the message descriptors: a new message needs no code
 * here. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <protobuf-c/protobuf-c.h>

#include "base/error.h"

struct show_options {
	bool json;
	bool verbose; /* list every page run; without it they are counted */
	/* Message of a record type, or NULL: then its size and first bytes are shown. Inventory and Tree are
	 * known without it. */
	const ProtobufCMessageDescriptor *(*descriptor)(uint32_t type);
};

/* Images that can't be restored by themselves (pages elsewhere, only pages, memory only) are shown too. */
int show_image(int dirfd, const struct show_options *o, FILE *out, struct error *e);
