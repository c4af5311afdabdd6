/* SPDX-License-Identifier: Apache-2.0 */
/* Complaints of a destination about a program that runs on. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "migrate/look.h"
#include "stream/records.h"

static unsigned complaints; /* so many, before it is content */
static unsigned looks, layouts, ends;
static int trouble; /* of the link */

/* In place of the engine's and the protocol's. */
int session_put_warm(struct session *s, struct stream_out *out, struct error *e)
{
	(void)s;
	(void)out;
	(void)e;
	looks++;
	return 0;
}

int session_put_layout(struct session *s, struct stream_out *out, struct error *e)
{
	(void)s;
	(void)out;
	(void)e;
	layouts++;
	return 0;
}

int peer_send(struct peer *p, uint32_t type, const ProtobufCMessage *m, struct error *e)
{
	(void)p;
	(void)e;
	assert_int_equal(type, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_END);
	assert_int_equal(((const Ferry__PeerRound *)m)->n, 0);
	ends++;
	return 0;
}

int peer_expect(struct peer *p, uint32_t type, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
		struct error *e)
{
	Ferry__PeerRound done = FERRY__PEER_ROUND__INIT;
	uint8_t packed[128];

	(void)p;
	assert_int_equal(type, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_DONE);
	assert_ptr_equal(d, &ferry__peer_round__descriptor);
	if (trouble)
		return error_say(e, trouble, "the other side ended the connection");
	if (looks <= complaints)
		done.complaint = (char *)"pid 7 fd 3: /tmp/x is missing here";
	size_t n = ferry__peer_round__pack(&done, packed);

	*ret = protobuf_c_message_unpack(d, NULL, n, packed);
	return 0;
}

static int look(unsigned n, bool with_layout, struct error *e)
{
	struct peer p = {0};

	complaints = n;
	looks = layouts = ends = 0;
	return look_until_content(&p, NULL, with_layout, e);
}

static void content(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(look(0, false, &e), 0);
	assert_int_equal(looks, 1);
	assert_int_equal(layouts, 0);
	assert_int_equal(ends, 1);
}

/* A file that was there for a moment. */
static void looks_again(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(look(3, true, &e), 0);
	assert_int_equal(looks, 4);
	assert_int_equal(layouts, 4);
	assert_int_equal(ends, 4);
	assert_false(error_is(&e));
}

static void gives_up(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(look(1000, false, &e), -EREMOTEIO);
	assert_in_range(looks, 5, 50);
	assert_non_null(strstr(e.text, "pid 7 fd 3: /tmp/x is missing here"));
}

static void link_fails(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	trouble = EPIPE;
	assert_int_equal(look(0, false, &e), -EPIPE);
	assert_int_equal(looks, 1);
	trouble = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(content),
		cmocka_unit_test(looks_again),
		cmocka_unit_test(gives_up),
		cmocka_unit_test(link_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
