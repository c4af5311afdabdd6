/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/look.h"

#include <errno.h>
#include <unistd.h>
#include "base/util.h"
#include "stream/records.h"

#define LOOKS          24
#define FIRST_PAUSE_US 10000u /* doubled after each look, */
#define PAUSE_US       60000u /* up to this */

static int look(struct peer *p, struct session *s, bool with_layout, ProtobufCMessage **ret, struct error *e)
{
	Ferry__PeerRound end = FERRY__PEER_ROUND__INIT;
	int r = session_put_warm(s, p->out, e);

	if (r >= 0 && with_layout)
		r = session_put_layout(s, p->out, e);
	error_phase(e, "look at the state");
	if (r >= 0)
		r = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_END, &end.base, e);
	if (r >= 0)
		r = peer_expect(p, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_DONE, &ferry__peer_round__descriptor,
				ret, e);
	return r;
}

int look_until_content(struct peer *p, struct session *s, bool with_layout, struct error *e)
{
	for (unsigned n = 1;; n++) {
		ProtobufCMessage *m;
		int r = look(p, s, with_layout, &m, e);

		if (r < 0)
			return r;
		const Ferry__PeerRound *done = (const Ferry__PeerRound *)m;

		if (*done->complaint && n == LOOKS)
			r = error_say(e, EREMOTEIO, "the other side cannot rebuild it: %s", done->complaint);
		bool content = !*done->complaint;

		protobuf_c_message_free_unpacked(m, NULL);
		if (content || r < 0)
			return r;
		usleep(MIN(FIRST_PAUSE_US << MIN(n - 1, 10u), PAUSE_US));
	}
}
