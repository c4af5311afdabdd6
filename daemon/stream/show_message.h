/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Messages as JSON values, and JSON values as text for people. */
#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdio.h>

/* Members in the order of the message. @brief: without members that have their default value, bytes cut
 * after 32. */
json_t *show_message(const ProtobufCMessage *m, bool brief);
/* "48 bytes 00 01 02 ..." (brief) or all of it in hex. */
json_t *show_bytes(const void *p, size_t n, bool brief);
/* A string that may not be UTF-8. */
json_t *show_string(const char *s);
/* As lines, indented by @indent steps. */
void show_text(const json_t *object, int indent, FILE *out);
