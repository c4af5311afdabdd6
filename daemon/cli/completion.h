/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Completion scripts of shells, made from the tables of verbs and options. */
#include <stdbool.h>
#include <stdio.h>

/* For "bash" or "zsh"; false: no such shell. */
bool completion_print(const char *shell, FILE *f);
