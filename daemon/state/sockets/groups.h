/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Memberships of multicast groups. */
#include "state/files/files.h"

int groups_capture(const struct fd_facts *f, Ferry__DgramSocket *m, struct error *e);
/* Is every device there? */
int groups_check(const FileDescription *m, struct error *e);
int groups_join(int fd, const FileDescription *m, struct error *e);
