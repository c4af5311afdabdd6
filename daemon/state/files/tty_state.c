/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of a pseudo-terminal.  The master answers for the slave's settings.
 *
 * Queues can only be read by taking what is in them, so it is put back if the program goes on here.  What the
 * master would read is written by the slave with output processing off.  What the slave would read, lines and
 * the beginning of one, is typed by TIOCSTI, which works at once, with all special characters off but those
 * that end a line; the line mode (ICANON) must not be switched after that, which would make one line of all.
 * To be read as a whole it has to be switched off for a moment, and shows an end of file as a zero byte.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "state/files/tty.h"

#define MAX_QUEUE (1u << 20)

static int open_slave(int master, struct error *e)
{
	int fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? error_set(e, errno, "opening the slave of a pseudo-terminal") : fd;
}

int tty_get_settings(int master, int slave, Ferry__TtyState *s, struct error *e)
{
	struct pollfd p = {.fd = master};
	struct termios2 t;
	struct winsize w;
	int locked = 0, packets = 0, exclusive = 0;

	if (ioctl(master, TCGETS2, &t) < 0 || ioctl(master, TIOCGWINSZ, &w) < 0 ||
	    ioctl(master, TIOCGPTLCK, &locked) < 0 || ioctl(master, TIOCGPKT, &packets) < 0 ||
	    (slave >= 0 && ioctl(slave, TIOCGEXCL, &exclusive) < 0))
		return error_set(e, errno, "reading the settings of a pseudo-terminal");
	s->termios.data = xmemdup(&t, sizeof(t));
	s->termios.len = sizeof(t);
	s->rows = w.ws_row;
	s->columns = w.ws_col;
	s->width = w.ws_xpixel;
	s->height = w.ws_ypixel;
	s->locked = locked;
	s->packets = packets;
	s->exclusive = exclusive;
	s->closed = poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
	return 0;
}

int tty_get_termios(int slave, Ferry__TtyState *s, struct error *e)
{
	struct termios2 t;

	if (ioctl(slave, TCGETS2, &t) < 0)
		return error_set(e, errno, "reading the settings of a terminal");
	s->termios.data = xmemdup(&t, sizeof(t));
	s->termios.len = sizeof(t);
	return 0;
}

int tty_set_termios(int slave, const Ferry__TtyState *s, struct error *e)
{
	sigset_t ttou, old;

	if (s->termios.len != sizeof(struct termios2))
		return error_say(e, EPROTO, "the image has settings of a terminal of %zu bytes",
				 s->termios.len);
	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &old);
	int r = ioctl(slave, TCSETS2, s->termios.data) < 0
			? error_set(e, errno, "putting the settings of the program on the terminal")
			: 0;

	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* Read all there is. A poll that finds something means that a read does not wait. */
static int read_all(int fd, ProtobufCBinaryData *ret, struct error *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, 0) == 1 && p.revents & POLLIN) {
		uint8_t buffer[4096];
		ssize_t n = read(fd, buffer, sizeof(buffer));

		if (n < 0 && (errno == EAGAIN || errno == EIO))
			return 0;
		if (n < 0 || ret->len + (size_t)n > MAX_QUEUE)
			return error_set(e, n < 0 ? errno : EFBIG,
					 "reading what is queued in a pseudo-terminal");
		if (n == 0)
			return 0;
		ret->data = xrealloc(ret->data, ret->len + (size_t)n);
		memcpy(ret->data + ret->len, buffer, (size_t)n);
		ret->len += (size_t)n;
	}
	return 0;
}

static int drain_input(int master, const struct termios2 *t, ProtobufCBinaryData *ret, struct error *e)
{
	cleanup_close int slave = open_slave(master, e);
	struct termios2 raw = *t;

	if (slave < 0)
		return slave;
	raw.c_lflag &= ~(unsigned)ICANON;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (ioctl(master, TCSETS2, &raw) < 0)
		return error_set(e, errno, "changing the settings of a pseudo-terminal");
	int r = read_all(slave, ret, e);

	if (ioctl(master, TCSETS2, t) < 0 && r >= 0)
		r = error_set(e, errno, "putting the settings of a pseudo-terminal back");
	return r;
}

int tty_drain(int master, bool has_slave, Ferry__TtyState *s, struct error *e)
{
	struct termios2 t;
	int off = 0, on = 1;

	memcpy(&t, s->termios.data, sizeof(t));
	if (s->packets && ioctl(master, TIOCPKT, &off) < 0)
		return error_set(e, errno, "switching packet mode off");
	int r = read_all(master, &s->output, e);

	if (s->packets && ioctl(master, TIOCPKT, &on) < 0 && r >= 0)
		r = error_set(e, errno, "switching packet mode on");
	if (r >= 0 && has_slave)
		r = drain_input(master, &t, &s->input, e);
	return r;
}

static int type(int slave, const struct termios2 *t, const ProtobufCBinaryData *d, struct error *e)
{
	for (size_t i = 0; i < d->len; i++) {
		char c = (char)d->data[i];

		if (c == 0 && t->c_lflag & ICANON && t->c_cc[VEOF])
			c = (char)t->c_cc[VEOF];
		if (ioctl(slave, TIOCSTI, &c) < 0)
			return error_set(e, errno, "typing what was queued in a pseudo-terminal");
	}
	return 0;
}

/* Whoever reads does not run yet, so it must all fit. */
static int write_all(int slave, const ProtobufCBinaryData *d, struct error *e)
{
	for (size_t done = 0; done < d->len;) {
		ssize_t n = write(slave, d->data + done, d->len - done);

		if (n <= 0)
			return error_set(e, n < 0 ? errno : EIO,
					 "writing the output that was queued in a pseudo-terminal");
		done += (size_t)n;
	}
	return 0;
}

/* Nothing is interpreted but the ends of lines. */
static struct termios2 plain(const struct termios2 *t)
{
	struct termios2 p = *t;

	p.c_iflag = 0;
	p.c_oflag &= ~(unsigned)OPOST;
	p.c_lflag = t->c_lflag & ICANON;
	memset(p.c_cc, 0, sizeof(p.c_cc));
	p.c_cc[VMIN] = 1;
	if (t->c_lflag & ICANON) {
		p.c_cc[VMIN] = t->c_cc[VMIN];
		p.c_cc[VEOF] = t->c_cc[VEOF];
		p.c_cc[VEOL] = t->c_cc[VEOL];
		p.c_cc[VEOL2] = t->c_cc[VEOL2];
	}
	return p;
}

int tty_push(int master, const Ferry__TtyState *s, struct error *e)
{
	struct termios2 t, p;

	if (!s->input.len && !s->output.len)
		return 0;
	cleanup_close int slave = open_slave(master, e);

	if (slave < 0)
		return slave;
	memcpy(&t, s->termios.data, sizeof(t));
	p = plain(&t);
	if (ioctl(master, TCSETS2, &p) < 0)
		return error_set(e, errno, "changing the settings of a pseudo-terminal");
	int r = write_all(slave, &s->output, e);

	if (r >= 0)
		r = type(slave, &t, &s->input, e);
	if (ioctl(master, TCSETS2, &t) < 0 && r >= 0)
		r = error_set(e, errno, "setting a pseudo-terminal");
	return r;
}

int tty_set_settings(int master, const Ferry__TtyState *s, struct error *e)
{
	struct winsize w = {(unsigned short)s->rows, (unsigned short)s->columns, (unsigned short)s->width,
			    (unsigned short)s->height};
	int off = 0;

	if (s->termios.len != sizeof(struct termios2))
		return error_say(e, EPROTO, "the image has settings of a terminal of %zu bytes",
				 s->termios.len);
	if (ioctl(master, TIOCSPTLCK, &off) < 0 || ioctl(master, TCSETS2, s->termios.data) < 0 ||
	    ioctl(master, TIOCSWINSZ, &w) < 0)
		return error_set(e, errno, "setting a pseudo-terminal");
	if (!s->closed)
		return 0;
	int slave = open_slave(master, e);

	if (slave >= 0)
		close(slave);
	return slave < 0 ? slave : 0;
}

int tty_set_modes(int master, const Ferry__TtyState *s, struct error *e)
{
	int on = 1;

	if (s->packets && ioctl(master, TIOCPKT, &on) < 0)
		return error_set(e, errno, "switching packet mode on");
	if (s->exclusive) {
		cleanup_close int slave = open_slave(master, e);

		if (slave < 0)
			return slave;
		if (ioctl(slave, TIOCEXCL) < 0)
			return error_set(e, errno, "switching exclusive mode on");
	}
	if (s->locked && ioctl(master, TIOCSPTLCK, &on) < 0)
		return error_set(e, errno, "locking a pseudo-terminal");
	return 0;
}
