/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Pseudo-terminals: what tty.c, tty_state.c and terminal.c share. */
#include "state/files/files.h"

/* Index of /dev/pts/N for a device number, or -1. */
int tty_index(dev_t rdev);

/* --- tty_state.c: a pair, by a descriptor of its master ------------------------------------------------ */
/* Settings only; changes nothing. @slave: some descriptor of the slave, or -1. */
int tty_get_settings(int master, int slave, Ferry__TtyState *s, struct error *e);
/* termios only, by any descriptor of the slave. Setting them, too, is allowed to a background group. */
int tty_get_termios(int slave, Ferry__TtyState *s, struct error *e);
int tty_set_termios(int slave, const Ferry__TtyState *s, struct error *e);
/* Take the queues; the reader finds nothing. @has_slave: the slave is open somewhere. */
int tty_drain(int master, bool has_slave, Ferry__TtyState *s, struct error *e);
/* Put them (back). The slave must be unlocked. */
int tty_push(int master, const Ferry__TtyState *s, struct error *e);
int tty_set_settings(int master, const Ferry__TtyState *s, struct error *e);
/* What must come last: lock, packet mode, exclusive mode. */
int tty_set_modes(int master, const Ferry__TtyState *s, struct error *e);

/* --- terminal.c: pairs at the destination --------------------------------------------------------------- */
/* --shell-job: the controlling terminal of the host process, opened anew. */
int terminal_of_caller(struct rebuild *r, int access, struct error *e);
/* The host's master of the pair that was @index, made on first use. */
int terminal_master(struct rebuild *r, int index, int *ret_fd, struct error *e);
