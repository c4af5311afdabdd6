/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What is made from a table of options at build time: parts of manual pages (man(7)) and completion for
 * shells. */
#include "service/options.h"

/* @s with what roff would take for something else made harmless. */
void manual_text(const char *s, FILE *f);
/* .TH and NAME. */
void manual_head(const char *name, int section, const char *about, FILE *f);
/* One .TP for each option of the verb that is shown to people. @file: as in a configuration file, without
 * those that cannot be there. */
void manual_options(const struct opt_table *t, uint32_t verb, bool file, FILE *f);
/* @s for zsh: in single quotes, inside [] or between colons. */
void completion_zsh_text(const char *s, FILE *f);
/* Completion of a program without verbs. False: no such shell. */
bool completion_of(const char *program, const struct opt_table *t, const char *shell, FILE *f);
