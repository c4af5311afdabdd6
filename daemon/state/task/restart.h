/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What to do with a system call that a thread was frozen in, when it goes on in another process. */
#include <stdint.h>

/* Restart codes of the kernel, which no program ever sees. */
#define RESTART_SYS    512 /* ERESTARTSYS */
#define RESTART_NOINTR 513 /* ERESTARTNOINTR */
#define RESTART_NOHAND 514 /* ERESTARTNOHAND */
#define RESTART_BLOCK  516 /* ERESTART_RESTARTBLOCK */

enum restart_rule {
	RESTART_KEEP,  /* the call has a result: leave it */
	RESTART_AGAIN, /* issue the call again with @args */
	RESTART_EINTR, /* the call returns -EINTR */
};

/* @nr: the call, -1 when not known; @code: its result register; @args: its arguments, which may be changed
 * for RESTART_AGAIN. */
enum restart_rule restart_rule(long nr, int64_t code, uint64_t args[6]);
