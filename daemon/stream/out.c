/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/out.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/util.h"
#include "proto/image.pb-c.h"

#define SEND_BUFFER     (4 << 20)
#define WRITE_BACK_STEP (64u << 20)

int stream_header_init(struct stream_header *h, struct error *e)
{
	memset(h, 0, sizeof(*h));
	if (getrandom(h->id, sizeof(h->id), 0) != sizeof(h->id))
		return error_set(e, errno, "random id of the image");
	return 0;
}

int stream_out_new(struct stream_out **ret, struct error *e)
{
	struct stream_out *s = xcalloc(1, sizeof(*s));

	s->files = (struct image_files){.dirfd = -1, .fd = {-1, -1, -1}};
	s->pack.runs = xcalloc(WIRE_MAX_RUNS, sizeof(*s->pack.runs));
	s->table = xmalloc(WIRE_MAX_TABLE);
	s->pack.data = aligned_alloc(WIRE_PAGE, STREAM_MAX_RUN);
	if (!s->pack.data) {
		stream_out_free(s);
		return error_set(e, ENOMEM, "buffer for page data");
	}
	int rc = stream_header_init(&s->header, e);

	if (rc < 0) {
		stream_out_free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

int stream_out_files(struct stream_out *s, int dirfd, bool state, struct error *e)
{
	unsigned which = 1u << IMAGE_PAGEMAP | 1u << IMAGE_PAGES | (state ? 1u << IMAGE_STATE : 0);
	int rc = image_files_create(&s->files, dirfd, which, e);

	if (rc < 0)
		return rc;
	rc = record_out_init(&s->second, s->files.fd[IMAGE_PAGEMAP], PAGEMAP_IMG, false, e);
	if (rc < 0)
		return rc;
	s->map = &s->second;
	s->pages_file = true;
	s->header.kind = WIRE_PAGEMAP;
	rc = record_out_header(s->map, &s->header, e);
	if (rc < 0 || !state)
		return rc;
	rc = record_out_init(&s->first, s->files.fd[IMAGE_STATE], STATE_IMG, false, e);
	if (rc < 0)
		return rc;
	s->state = &s->first;
	s->header.kind = WIRE_STATE;
	return record_out_header(s->state, &s->header, e);
}

int stream_out_dir(struct stream_out **ret, int dirfd, const char *parent, struct error *e)
{
	struct stream_out *s;
	int rc = stream_out_new(&s, e);

	if (rc < 0)
		return rc;
	if (parent)
		rc = image_set_parent(dirfd, parent, &s->header, e);
	if (rc == 0)
		rc = stream_out_files(s, dirfd, true, e);
	if (rc < 0)
		stream_out_free(s);
	else
		*ret = s;
	return rc;
}

/* All of this only makes it faster: refusals don't matter. */
static void tune_socket(int fd)
{
	int size = SEND_BUFFER, one = 1, domain = 0;
	socklen_t len = sizeof(domain);

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	/* Without privilege the limit of SO_SNDBUF is below what TCP grows to by itself. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 && domain == AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int stream_out_socket(struct stream_out **ret, int fd, struct error *e)
{
	struct stream_out *s;
	int rc = stream_out_new(&s, e);

	if (rc < 0)
		return rc;
	tune_socket(fd);
	s->header.kind = WIRE_SOCKET;
	rc = record_out_init(&s->first, fd, "connection", true, e);
	if (rc == 0) {
		s->state = s->map = &s->first;
		rc = record_out_header(s->state, &s->header, e);
	}
	if (rc < 0)
		stream_out_free(s);
	else
		*ret = s;
	return rc;
}

int stream_out_page_server(struct stream_out **ret, int dirfd, int sock, const char *parent, struct error *e)
{
	struct stream_out *s;
	int rc = stream_out_new(&s, e);

	if (rc < 0)
		return rc;
	if (parent && (!*parent || strlen(parent) > WIRE_MAX_PARENT))
		rc = error_say(e, ENAMETOOLONG, "path of the parent image directory of %zu bytes",
			       strlen(parent));
	if (rc == 0 && parent)
		memcpy(s->header.parent, parent, strlen(parent) + 1);
	if (rc == 0)
		rc = image_files_create(&s->files, dirfd, 1u << IMAGE_STATE, e);
	if (rc == 0)
		rc = record_out_init(&s->first, s->files.fd[IMAGE_STATE], STATE_IMG, false, e);
	if (rc == 0)
		rc = record_out_init(&s->second, sock, "page server", true, e);
	if (rc == 0) {
		tune_socket(sock);
		s->state = &s->first;
		s->map = &s->second;
		s->page_server = true;
		s->header.flags = WIRE_PAGES_ELSEWHERE;
		s->header.kind = WIRE_STATE;
		rc = record_out_header(s->state, &s->header, e);
		s->header.kind = WIRE_PAGE_SERVER;
		rc = rc < 0 ? rc : record_out_header(s->map, &s->header, e);
	}
	if (rc < 0)
		stream_out_free(s);
	else
		*ret = s;
	return rc;
}

/* A long dump to a disk that is only synced at the end would wait there for all of it. */
static void start_write_back(struct stream_out *s)
{
	if (s->fast || s->written - s->started < WRITE_BACK_STEP)
		return;
	sync_file_range(s->files.fd[IMAGE_PAGES], s->started, s->written - s->started, SYNC_FILE_RANGE_WRITE);
	s->started = s->written;
}

int stream_emit_pages(struct stream_out *s, struct wire_run *runs, size_t n, const void *data, size_t size,
		      struct error *e)
{
	struct wire_pages p = {htole32(n), 0};
	struct wire_record h = {.type = FERRY__RECORD_TYPE__RECORD_PAGES,
				.flags = !s->pages_file && size ? WIRE_FLAG_DATA : 0};

	if (s->page_server) {
		int rc = page_server_poll(s, e);

		if (rc < 0)
			return rc;
	}
	if (s->pages_file && size) {
		struct iovec v = {(void *)data, size};
		int rc = s->map->failed ? 0
					: stream_write(s->files.fd[IMAGE_PAGES], false, PAGES_IMG, &v, 1, e);

		if (rc < 0) {
			s->map->failed = -rc;
			return rc;
		}
	}
	for (size_t i = 0; i < n && s->pages_file; i++)
		if (run_has_data(runs[i].flags))
			runs[i].offset += s->written;
	wire_swap_runs(runs, n);
	memcpy(s->table, &p, sizeof(p));
	memcpy(s->table + sizeof(p), runs, n * sizeof(*runs));
	size_t table = sizeof(p) + n * sizeof(*runs);
	int rc = s->pages_file || !size ? record_out_put(s->map, &h, s->table, table, NULL, 0, e)
					: stream_put_data(s, &h, s->table, table, data, size, e);

	if (rc == 0 && s->pages_file) {
		s->written += size;
		start_write_back(s);
	}
	return rc;
}

void stream_out_fast(struct stream_out *s)
{
	s->fast = true;
}

uint64_t stream_out_bytes(const struct stream_out *s)
{
	return s->first.bytes + s->second.bytes + s->written;
}

void stream_out_free(struct stream_out *s)
{
	if (!s)
		return;
	record_out_deinit(&s->first);
	record_out_deinit(&s->second);
	image_files_deinit(&s->files);
	packing_deinit(&s->packing);
	free(s->pack.runs);
	free(s->pack.data);
	free(s->table);
	free(s->scratch);
	free(s);
}
