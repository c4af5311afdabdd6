/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Addresses of IPv4 and IPv6 sockets. */
#include <netinet/in.h>
#include <sys/socket.h>

#include "state/files/files.h"

#define INET_TEXT 64

union inet_address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

unsigned inet_port_of(const union inet_address *a);
/* "192.0.2.1:80", "[2001:db8::1]:80". */
const char *inet_text(const union inet_address *a, char *buffer, size_t size);
/* From an image. */
int inet_get_address(const FileDescription *m, const ProtobufCBinaryData *from, union inet_address *ret,
		     struct error *e);
void inet_put_address(ProtobufCBinaryData *to, const union inet_address *a, socklen_t n);
