#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Who may use the control socket of ferryd, and for which processes (docs/trust.md):   control.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

group=games
gid=$(getent group $group | cut -d : -f 3)
member=12345 stranger=12346
ferryd_opts=()

as_member="setpriv --reuid $member --regid $member --groups $gid env HOME=/"
as_stranger="setpriv --reuid $stranger --regid $stranger --clear-groups env HOME=/"

# Two hosts that trust each other; ferryd in A serves the group. What users start lies where they can reach it.
pair() {
	[ -n "$gid" ] || skip "no group $group here"
	mkdir "$dir/bin" && cp "$ferry" "$programs/hot" "$programs/mixture" "$dir/bin" && programs=$dir/bin || fail "cannot copy"
	chmod 755 "$dir" "$dir/bin"
	host_up B 20000 && host_link A B || fail "no second host"
	must_work "$ferry" keys init --keys "$dir/ka"
	must_work "$ferry" keys init --keys "$dir/kb"
	must_work "$ferry" keys trust 192.0.2.1 --fingerprint "$("$ferry" keys show --keys "$dir/ka")" --keys "$dir/kb"
	must_work "$ferry" keys trust 192.0.2.2 --fingerprint "$("$ferry" keys show --keys "$dir/kb")" --keys "$dir/ka"
	serve B 192.0.2.2 kb
	serve A 127.0.0.1 ka --control-group $group "${ferryd_opts[@]}"
}

# serve HOST ADDRESS KEYS [OPTION]...
serve() {
	local host=$1 address=$2 keys=$3
	shift 3
	: >"$dir/ferryd.$host"
	host_run "$host" "$bin/ferryd" --listen "$address" --keys "$dir/$keys" -v4 "$@" </dev/null >"$dir/ferryd.$host" 2>&1 &
	within 10 host_run "$host" test -S /run/ferry/ferryd.sock || fail "no control socket in $host: $(cat "$dir/ferryd.$host")"
	within 10 host_run "$host" sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen in $host: $(cat "$dir/ferryd.$host")"
}

# The program goes on and passes, wherever it is; ferryd stays.
over() {
	: >"$test/go"
	within 30 test -e "$test/result" || fail "the target never finished"
	[ "$(cat "$test/result")" = pass ] || fail "$(cat "$test/result")"
}

another() {
	within 10 eval '! alive A' || fail "it does not end"
	rm -rf "$test"
}

mode_of() { host_run A stat -c '%a %U:%G' "$1"; }

case_modes() {
	local of
	pair
	within 5 eval '[ "$(mode_of /run/ferry/ferryd.sock)" = "660 root:'$group'" ]' || fail "the socket is $(mode_of /run/ferry/ferryd.sock)"
	[ "$(mode_of /run/ferry)" = "710 root:$group" ] || fail "the directory is $(mode_of /run/ferry)"
	for of in jobs keepers; do
		[ "$(mode_of /run/ferry/$of)" = "700 root:root" ] || fail "$of is $(mode_of /run/ferry/$of)"
	done
	[ "$(host_run B stat -c %a /run/ferry/ferryd.sock)" = 600 ] && [ "$(host_run B stat -c %a /run/ferry)" = 700 ] || fail "open without a group"
	# A job of root leaves it as it is
	start mixture
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" --leave-running
	[ "$(mode_of /run/ferry)" = "710 root:$group" ] || fail "after a job the directory is $(mode_of /run/ferry)"
	in_a "$bin/ferryd" --control-group no-such-group --check-config
	[ "$rc" = 1 ] && grep -q 'Error: there is no group no-such-group' "$dir/out" || fail "a group that is not there: $(cat "$dir/out")"
	over
}

case_own() {
	pair
	start mixture $as_member
	# It is what it says: a process of that user
	[ "$(host_run A stat -c %u "/proc/$pid")" = $member ] || fail "the test is not the user's"
	must_work $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2
	! alive A && alive B || fail "it did not move"
	grep -q 'moved to 192.0.2.2' "$dir/out" || fail "the user was not told: $(cat "$dir/out")"
	grep -q "user $member: ferry migrate" "$dir/ferryd.A" || fail "ferryd does not log for whom"
	over
}

case_others() {
	pair
	start mixture $as_stranger
	take_snapshot proc.before
	must_fail "process $pid is not one that user $member may" $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2
	must_fail "process $pid is not one that user $member may" $as_member "$dir/bin/ferry" cancel "$pid"
	# One who is not in the group gets nowhere with his own
	in_a $as_stranger "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2
	[ "$rc" != 0 ] || fail "somebody who is not in the group moved it"
	untouched
	over
	another
	# A process of root, and one that the user gave capabilities to or that has another user's rights in one thread's saved id
	start mixture
	take_snapshot proc.before
	must_fail 'is not one that user' $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2
	untouched
	over
	another
	start mixture setpriv --reuid $member --regid $member --clear-groups --inh-caps +net_raw --ambient-caps +net_raw
	must_fail 'is not one that user.*(capabilities|somebody else)' $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2
	over
	another
	start mixture setpriv --ruid $member --euid $stranger --regid $member --clear-groups
	must_fail 'is not one that user' $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2
	over
}

# A child of the user's program has other rights
case_child_of_somebody_else() {
	pair
	# setpriv as root under a shell of the user's is not to be had, so the other way round: the root of the tree becomes the user's
	host_run A setsid -f sh -c 'setpriv --reuid '$stranger' --regid '$stranger' --clear-groups sleep 1000 & echo $! >'"$dir"'/child; echo $$ >'"$dir"'/pid; exec setpriv --reuid '$member' --regid '$member' --clear-groups sleep 1000' </dev/null >/dev/null 2>&1
	within 5 test -s "$dir/pid" -a -s "$dir/child"
	read -r pid <"$dir/pid"
	read -r child <"$dir/child"
	within 5 eval '[ "$(host_run A stat -c %u /proc/$pid /proc/$child | tr "\n" " ")" = "'$member' '$stranger' " ]' || fail "the tree is not as it should be"
	must_fail "process $child is not one that user $member may" $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2
	alive A || fail "it is gone"
}

case_options() {
	pair
	start mixture $as_member
	take_snapshot proc.before
	printf '#!/bin/sh\nid -u >%s/ran\n' "$dir" >"$dir/script"
	chmod 755 "$dir/script"
	must_fail 'action-script is not an option of migrate for users' $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2 --action-script "$dir/script"
	must_fail 'insecure is not an option' $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2 --insecure
	must_fail 'report-dir is not an option' $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2 --report-dir "$dir"
	must_fail 'owner is not an option' $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2 --owner 0
	[ ! -e "$dir/ran" ] || fail "a script of the user's ran"
	untouched
	over
}

case_dump() {
	pair
	start mixture $as_member
	mkdir -m 700 "$dir/own" "$dir/roots" && chown $member "$dir/own" && chmod 755 "$dir/roots"
	must_fail 'must belong to who asks' $as_member "$dir/bin/ferry" dump -t "$pid" -D "$dir/roots" --leave-running
	[ -z "$(ls "$dir/roots")" ] || fail "something was written for the user into a directory of root"
	must_work $as_member "$dir/bin/ferry" dump -t "$pid" -D "$dir/own"
	! alive A || fail "it is still there"
	[ -z "$(find "$dir/own" -type f ! -perm 600)" ] && [ -n "$(find "$dir/own" -type f)" ] || fail "the image is open to others"
	must_work "$ferry" restore -d -D "$dir/own"
	over
}

said() { grep -q "$2" "$dir/$1"; }

case_status_and_cancel() {
	local theirs job
	pair
	start hot $as_stranger
	theirs=$pid
	start mixture $as_member
	# Both are followed by root, as long as nobody ends that
	: >"$dir/one" >"$dir/two"
	host_run A timeout -k 2 60 "$ferry" track --interval 10 --json "$theirs" >"$dir/one" 2>&1 &
	host_run A timeout -k 2 60 "$ferry" track --interval 10 --json "$pid" >"$dir/two" 2>&1 &
	job=$!
	within 20 said one '"event"' && within 20 said two '"event"' || fail "not followed: $(cat "$dir/one" "$dir/two")"
	must_work $as_member "$dir/bin/ferry" status --json
	grep -q "\"target\":$pid\b" "$dir/out" || fail "his own is not listed: $(cat "$dir/out")"
	! grep -q "\"target\":$theirs\b" "$dir/out" || fail "another user's is listed: $(cat "$dir/out")"
	must_fail 'is not one that user' $as_member "$dir/bin/ferry" cancel "$theirs"
	must_work $as_member "$dir/bin/ferry" cancel "$pid"
	wait $job
	must_work "$ferry" cancel "$theirs"
	over
}

# Who goes away cancels what he asked for
case_gone() {
	local client
	pair
	start hot $as_member
	: >"$dir/client"
	host_run A $as_member "$dir/bin/ferry" migrate "$pid" --to 192.0.2.2 --json --compress none --max-bandwidth 100K >"$dir/client" 2>&1 &
	client=$!
	within 20 said client '"event":"start"' || fail "it does not begin: $(cat "$dir/client")"
	host_run A sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = ferry ] && [ "$(stat -c %u $p)" = "$0" ] && kill -9 ${p#/proc/}; done; :' $member 2>/dev/null
	wait $client && fail "the one who asked ended well"
	within 20 eval '[ -z "$(host_run A "$ferry" status --json)" ]' || fail "it goes on: $(host_run A "$ferry" status --json)"
	within 10 eval '[ "$(host_run A grep TracerPid /proc/$pid/status | tr -dc 0-9)" = 0 ]' || fail "it is still traced"
	alive A || fail "it is gone"
	over
}

run_cases "modes own others child-of-somebody-else options dump status-and-cancel gone" "$@"
