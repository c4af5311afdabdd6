/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the parsers of this folder share. Text is NUL terminated; a cursor never moves behind the NUL. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

#include "base/error.h"

/* Read digits of @base (8, 10, 16; no sign, no blanks, no 0x) at *p and move on. False: none, or overflow. */
bool text_u64(const char **p, int base, uint64_t *ret);
/* The same with an optional minus. */
bool text_i64(const char **p, int64_t *ret);
/* Move on if *p has @s here. */
bool text_skip(const char **p, const char *s);
void text_blanks(const char **p);
/* Start of the next line, or the NUL. */
const char *text_next_line(const char *p);

/* Read /proc/PID/NAME or, @tid not 0, /proc/PID/task/TID/NAME. */
int proc_file_read(pid_t pid, pid_t tid, const char *name, char **ret, struct error *e);
/* Names of a folder of /proc that are numbers, ascending. */
int proc_dir_numbers(const char *path, int **ret, size_t *ret_n);
