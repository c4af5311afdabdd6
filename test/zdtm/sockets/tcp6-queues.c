/* SPDX-License-Identifier: Apache-2.0 */
#define FAMILY AF_INET6
#include "tcp-queues.c"
