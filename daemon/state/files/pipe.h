/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What pipes and FIFOs have in common: contents and packets. */
#include "state/files/files.h"

/* Source. What was seen of one pipe, from whichever of its ends. */
struct pipe_seen {
	uint64_t id;
	bool has_reader, has_writer; /* in the tree */
	bool fifo, taken;
	bool packets; /* one of its ends is in packet mode */
	short events; /* poll of the only kind of end there is */
	uint32_t any; /* a description of it */
};
/* Fill m->pipe; take the content when it was not taken yet and the copy is able to. */
int pipe_capture_end(struct capture *c, struct fd_facts *f, FileDescription *m, bool fifo, struct error *e);
int pipe_settle(struct capture *c, Ferry__Files *all, struct error *e);

/* Destination. Both ends are in stock until all processes have theirs. */
struct pipe_object {
	uint32_t read, write; /* places in the stock; the same one for a FIFO */
	bool read_given, write_given;
};
/* Object of m->pipe; *ret_new: it was not there, the caller fills in the ends. */
struct pipe_object *pipe_object_of(struct rebuild *r, const FileDescription *m, bool *ret_new);
int pipe_set_size(int fd, const FileDescription *m, struct error *e);
/* Put the content back, if @m carries it. */
int pipe_fill(struct rebuild *r, const FileDescription *m, struct error *e);
