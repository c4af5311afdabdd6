/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pseudo-terminal with both sides in the tree: settings, window, and what is queued both ways, in line
 * mode: two whole lines and the beginning of a third.
 */
#define _XOPEN_SOURCE 600
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "zdtm.h"

static void expect(int fd, const char *text)
{
	char buf[200] = "";
	struct pollfd p = {.fd = fd, .events = POLLIN};

	CHECK(poll(&p, 1, 10000) == 1 && p.revents & POLLIN, "\"%s\" cannot be read", text);
	CHECK(read(fd, buf, sizeof(buf) - 1) > 0, "\"%s\" cannot be read", text);
	CHECK(!strcmp(buf, text), "\"%s\" was read, not \"%s\"", buf, text);
}

static void write_text(int fd, const char *text)
{
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && p.revents & POLLIN;
}

int main(int argc, char **argv)
{
	struct winsize w = {33, 77, 5, 6}, now;
	struct termios t, t_now;
	int master, slave, raw_master, raw_slave, again, packet, on = 1;

	test_init(argc, argv);
	master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
	MUST(grantpt(master));
	MUST(unlockpt(master));
	slave = MUST(open(ptsname(master), O_RDWR | O_NOCTTY));
	again = MUST(open(ptsname(master), O_WRONLY | O_NOCTTY | O_NONBLOCK));
	MUST(ioctl(master, TIOCSWINSZ, &w));
	MUST(tcgetattr(slave, &t));
	t.c_lflag &= ~ECHO;
	t.c_cc[VERASE] = 'x' & 31;
	t.c_cc[VEOL] = ';';
	MUST(cfsetspeed(&t, B19200));
	MUST(tcsetattr(slave, TCSANOW, &t));
	write_text(master, "first\rsecond;\x04third");
	write_text(slave, "one\n");
	write_text(again, "two\n");
	raw_master = MUST(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK));
	MUST(unlockpt(raw_master));
	raw_slave = MUST(open(ptsname(raw_master), O_RDWR | O_NOCTTY));
	MUST(tcgetattr(raw_slave, &t_now));
	cfmakeraw(&t_now);
	MUST(tcsetattr(raw_slave, TCSANOW, &t_now));
	write_text(raw_master, "raw\r\n\x03");
	packet = MUST(posix_openpt(O_RDWR | O_NOCTTY));
	MUST(ioctl(packet, TIOCPKT, &on));
	test_sleep_ms(30);
	test_ready();
	test_wait();
	MUST(ioctl(slave, TIOCGWINSZ, &now));
	CHECK(now.ws_row == 33 && now.ws_col == 77 && now.ws_xpixel == 5 && now.ws_ypixel == 6,
	      "window of %dx%d", now.ws_row, now.ws_col);
	MUST(tcgetattr(slave, &t_now));
	CHECK(t_now.c_lflag == t.c_lflag && t_now.c_iflag == t.c_iflag && t_now.c_oflag == t.c_oflag &&
		      t_now.c_cflag == t.c_cflag && !memcmp(t_now.c_cc, t.c_cc, NCCS),
	      "the settings are others");
	CHECK_EQ(cfgetospeed(&t_now), B19200);
	expect(slave, "first\n");
	expect(slave, "second;");
	CHECK(readable(slave), "no end of file");
	CHECK_EQ(read(slave, &now, 1), 0);
	CHECK(!readable(slave), "the beginning of a line can be read");
	write_text(master, "\x18 and more\n");
	expect(slave, "thir and more\n");
	expect(master, "one\r\ntwo\r\n");
	write_text(slave, "three\n");
	expect(master, "three\r\n");
	expect(raw_slave, "raw\r\n\x03");
	MUST(ioctl(packet, TIOCGPKT, &on));
	CHECK_EQ(on, 1);
	CHECK_EQ(open(ptsname(packet), O_RDWR | O_NOCTTY), -1); /* it was never unlocked */
	CHECK(fcntl(raw_master, F_GETFL) & O_NONBLOCK && fcntl(again, F_GETFL) & O_NONBLOCK, "flags");
	CHECK_EQ(fcntl(again, F_GETFL) & O_ACCMODE, O_WRONLY);
	close(slave);
	CHECK(isatty(again), "no terminal");
	close(again);
	CHECK(read(master, &now, 1) == -1 && errno == EIO, "the end of the slave is not seen");
	close(raw_master);
	CHECK_EQ(read(raw_slave, &now, 1), 0);
	test_pass();
}
