/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One error object, created at the edge (a verb, a job, a test), passed down, filled once where the
 * failure happens.  The first error survives: filling a filled object changes nothing, so clean-up
 * code may pass the same object on.  Functions return 0 (or a count), a negative errno that is
 * forwarded unchanged, or a documented positive outcome.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

struct error {
	int code;       /* errno, positive; 0: no error */
	char phase[32]; /* what the program was doing: "freeze", "round 2", "restore files" */
	char where[64]; /* file:line that filled it, for the log */
	char text[640]; /* one sentence without final stop, names pid, fd, address, file */
};

#define ERROR_INIT \
	{          \
		0  \
	}

/* Fill @e with errno value @code (positive) and a text; ": <errno in words>" is appended unless
 * @code is 0 or EINVAL-like noise is unwanted (use error_say).  Returns -@code (-EIO when 0). */
int error_set_at(struct error *e, const char *where, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The same without the errno in words: for refusals whose text already says everything. */
int error_say_at(struct error *e, const char *where, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define ERROR_STR_(x)           #x
#define ERROR_STR(x)            ERROR_STR_(x)
#define error_set(e, code, ...) error_set_at(e, __FILE__ ":" ERROR_STR(__LINE__), code, __VA_ARGS__)
#define error_say(e, code, ...) error_say_at(e, __FILE__ ":" ERROR_STR(__LINE__), code, __VA_ARGS__)

/* Put "text: " in front of the text of a filled error. Returns -e->code. */
int error_prefix(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Name the phase errors from here on belong to; kept by the first error. */
void error_phase(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline bool error_is(const struct error *e)
{
	return e->code != 0;
}
void error_clear(struct error *e);
