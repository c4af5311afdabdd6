/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One stream: records of protobuf state and runs of pages, to and from an image directory or a socket.
 * Bytes on disk and wire: docs/image-format.md.
 *
 * Sender: any number of put/put_pages, then finish (trailer). Receiver: get until it returns 0 (trailer
 * seen). All multi-byte fields little endian; every record and every page run carries an xxh3 checksum.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "base/page_set.h"
#include "stream/choice.h"

#define STREAM_VERSION    1u
#define STREAM_MAX_RECORD (64u << 20) /* payload bytes of a state record */
#define STREAM_MAX_RUN    (2u << 20)  /* bytes of one page run with data; longer ones are split when put */
#define STREAM_MAX_CHAIN  1000u       /* images in a chain */

/* Whose pages: a process (pid as in the image) or a shared memory object (its id). */
enum page_space {
	SPACE_PROCESS = 0,
	SPACE_OBJECT = 1, /* address = offset in the object */
	SPACE_FILE = 2,   /* ghost file content; address = offset in the file */
};

struct page_run {
	uint32_t space;  /* enum page_space */
	uint32_t flags;  /* PAGE_RUN_* */
	uint64_t id;     /* pid or object id */
	uint64_t addr;   /* bytes */
	uint64_t length; /* bytes; a multiple of the page size (SPACE_FILE: any) */
	uint64_t from;   /* SAME: pid; COPY: address */
};
#define PAGE_RUN_ZERO (1u << 0) /* no data follows: reads as zeros, length may be of any size */
#define PAGE_RUN_DROP (1u << 1) /* no data: what was sent for this range before is void (page dropped) */
#define PAGE_RUN_SAME                                                                                    \
	(1u << 2) /* no data: what process `from` has there at this point of the stream, shared with it; \
		     SPACE_PROCESS only */
#define PAGE_RUN_COPY                                                                                    \
	(1u << 3) /* no data follows: content as this process has at `from` at this point of the stream; \
		     SPACE_PROCESS and sockets only, and only for a reader that knows it */

/* A record as received. Memory belongs to the stream, valid until the next get. */
struct record {
	bool is_pages;
	uint32_t type;    /* RecordType of proto/image.proto (or PeerType on the wire) */
	int32_t pid, tid; /* whose state; 0: of the tree */
	uint32_t flags;   /* RECORD_* */
	const uint8_t *payload;
	size_t size;
	struct page_run run;
	const void *data;  /* pages, run.length bytes; NULL for ZERO, DROP, SAME and COPY */
	uint64_t checksum; /* COPY: of the content, for record_is_copy */
};
#define RECORD_WARM (1u << 0) /* captured while the target ran: for checks, replaced later */

struct stream_out;
struct stream_in;

/* @dirfd: an image directory (a copy of the descriptor is kept). Files are created 0600 with
 * O_EXCL|O_NOFOLLOW. @parent: relative path of the parent image directory or NULL. Not valid as an image
 * before finish. */
int stream_out_dir(struct stream_out **ret, int dirfd, const char *parent, struct error *e);
/* Connected, blocking stream socket; not closed by the stream. SO_SNDTIMEO is honoured (-ETIMEDOUT). Nothing
 * is sent before the buffer is full, stream_flush or stream_finish. */
int stream_out_socket(struct stream_out **ret, int fd, struct error *e);
int stream_put(struct stream_out *s, uint32_t type, int32_t pid, int32_t tid, uint32_t flags,
	       const ProtobufCMessage *m, struct error *e);
/* @data of COPY: for its checksum. */
int stream_put_pages(struct stream_out *s, const struct page_run *run, const void *data, struct error *e);
/* Push buffered bytes out. */
int stream_flush(struct stream_out *s, struct error *e);
/* Do not fsync at the finish: faster, but the image may be lost if the machine (not the program) fails. */
void stream_out_fast(struct stream_out *s);
/* Trailer; directory: fsync, then the directory is a valid image, and an older image in it is replaced. */
int stream_finish(struct stream_out *s, struct error *e);
/* Give up; a directory is left without its files of this stream. */
void stream_out_free(struct stream_out *s);
uint64_t stream_out_bytes(const struct stream_out *s);
/* Of a socket: page data may be packed, with what its reader knows (@known: CODEC_BITs), as far as it pays
 * (stream/choice.h). @max_bandwidth: bytes/s that the caller lets go; 0: any. */
void stream_out_compress(struct stream_out *s, enum compress_mode mode, unsigned known,
			 uint64_t max_bandwidth);
/* From here on the target stands. */
void stream_out_hurry(struct stream_out *s);
/* The other side has said that all that was put so far is there. */
void stream_out_arrived(struct stream_out *s);
/* How many times as long page data take when the target stands, by what is known now: 1 or more. */
double stream_out_stop_factor(const struct stream_out *s);
/* Is a look at a page cheaper than sending it? Nothing is known of a link that was not used yet. */
bool stream_out_is_slow(const struct stream_out *s);
/* Wait for so long, or until the reader hangs up: true then. A directory has no such reader. */
bool stream_out_is_over(const struct stream_out *s, uint64_t wait_ns);
/* The reader knows COPY; and: it does, and the link is slow. */
void stream_out_allow_copies(struct stream_out *s);
bool stream_out_wants_copies(const struct stream_out *s);
/* Page data so far: as they are, and as they went; and by codec, how much of it (as it is). */
struct stream_flow {
	uint64_t pages, wire;
	uint64_t by[CODECS];
};
void stream_out_flow(const struct stream_out *s, struct stream_flow *ret);

/* Open an image directory: checks magic, version, trailer and the checksums of all records before it returns
 * (the architecture is in the Inventory); errors say which file, at which offset, what was found. Page
 * payload is checked when read. One directory, every run as it was put. */
int stream_in_dir(struct stream_in **ret, int dirfd, struct error *e);
/* Reads nothing yet, and never beyond the trailer. SO_RCVTIMEO is honoured (-ETIMEDOUT). */
int stream_in_socket(struct stream_in **ret, int fd, struct error *e);
/* A page run is waiting that was read from the socket already, so poll(2) would not tell. */
bool stream_in_pending(const struct stream_in *s);
/* 1: a record in *ret; 0: the trailer was read, the stream is complete; -errno (cut short, corrupt, newer
 * version...). */
int stream_get(struct stream_in *s, struct record *ret, struct error *e);
/* Is @data what a COPY run's sender had? */
bool record_is_copy(const struct record *r, const void *data);
/* Unpack a state record's payload; the message is the caller's (protobuf_c_message_free_unpacked(m, NULL)).
 */
int record_unpack(const struct record *r, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
		  struct error *e);
/* Name of the parent image directory or NULL. */
const char *stream_in_parent(const struct stream_in *s);
void stream_in_free(struct stream_in *s);

/* A chain of images, newest first: dirs[0] is the newest. Reads all state from the newest, and page runs of
 * every range from the newest directory that has it, so that nothing is read twice; also within one
 * directory. No SAME and DROP runs come out, and none overlap. Same get interface. */
int stream_in_chain(struct stream_in **ret, int dirfd, struct error *e);

/* A process that is to be made, and the one that it is to be cloned from with its memory. */
struct stream_kin {
	uint64_t pid;
	uint64_t from;          /* 0: nobody; earlier in the list */
	struct page_set common; /* what it can inherit */
};
/* Of a chain: @fn is called once, when all state records have been given and no page run yet. In it
 * stream_in_share may say how processes are made: then page runs come in that order, what several share once,
 * with SAME runs for the others, each process' SAME runs first of all its runs and with nothing between them;
 * DROP runs then occur. Without it nothing is shared. */
void stream_in_before_pages(struct stream_in *s, int (*fn)(void *ctx, struct stream_in *s, struct error *e),
			    void *ctx);
int stream_in_share(struct stream_in *s, const struct stream_kin *kin, size_t n, struct error *e);

/* Of a chain, in the function of stream_in_before_pages: runs with data of process @pid in @set do not come;
 * those that there were are added to @ret. */
int stream_in_leave(struct stream_in *s, uint64_t pid, const struct page_set *set, struct page_set *ret,
		    struct error *e);
/* Of a chain of which nothing was got: what process @pid has at @addr; zeros where it has nothing. */
int stream_in_read(struct stream_in *s, uint64_t pid, uint64_t addr, uint64_t length, void *data,
		   struct error *e);

/* A dump whose pages go to a page server: state into the directory, page runs over the connected socket.
 * @parent as in stream_out_dir, looked up at the server. stream_finish returns after the server has said that
 * the pages are safe. */
int stream_out_page_server(struct stream_out **ret, int dirfd, int sock, const char *parent, struct error *e);
/* Serve one such session: pagemap.img and pages.img in @dirfd, whole or not at all. The client is told of a
 * failure. */
int page_server_serve(int sock, int dirfd, uint64_t *ret_bytes, struct error *e);
/* Tell a client that is not served why. */
void page_server_refuse(int sock, const struct error *why);
