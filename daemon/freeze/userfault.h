/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Stopping a tree whose threads may wait for a monitor of the tree itself (userfaultfd(2)): for a page, or
 * for an event to be read.
 */
#include "freeze/tree.h"

/* A stop begins: nothing is known of any thread. */
void userfaults_begin(struct tree *tree);
/* Stop the threads that are seen waiting while the others run, which may be the monitors. Seized threads
 * only; the others stay as they are. Until all those have stopped, or the time is up (then the rest has to
 * be stopped in spite of them). Returns 0, or -errno. */
int userfaults_stop_waiting(struct tree *tree, uint64_t limit, struct error *e);
/* Let those run that may be the monitor for which @stuck (or NULL) waits. @all: also those that waited for
 * another monitor. */
void userfaults_let_monitors_go(struct tree *tree, const struct task *stuck, bool all, struct error *e);
