#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs that start at the destination before all of their memory is there:   postcopy.sh [CASE]...
# The link between the hosts is slow (tbf), so that there is time to break things while pages are on their way. The programs check every
# page they touch. In the end exactly one copy runs, and nothing is left of the other, of journals or of helpers.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

slow() { host_run A tc qdisc add dev eth0 root tbf rate "$1" burst 64k latency 50ms 2>/dev/null || skip "no tbf in this kernel"; }
# So slow that what is missing takes most of a minute: something can be killed in the meantime. The rest need not be waited for.
very_slow() { slow 8mbit; }
fast() { host_run A tc qdisc change dev eth0 root tbf rate 1gbit burst 1m latency 50ms || fail "cannot make the link fast"; }

# With $tls set to "yes" by the case: keys on both sides, and everything over TLS
tls=
trust() { [ "$tls" = yes ] && echo "--keys $dir/k$1" || echo --insecure; }

make_keys() {
	[ "$tls" = yes ] || return 0
	must_work "$ferry" keys init --keys "$dir/kA"
	must_work "$ferry" keys init --keys "$dir/kB"
	must_work "$ferry" keys trust 192.0.2.2 --fingerprint "$("$ferry" keys show --keys "$dir/kB")" --keys "$dir/kA"
	must_work "$ferry" keys trust 192.0.2.1 --fingerprint "$("$ferry" keys show --keys "$dir/kA")" --keys "$dir/kB"
}

ferryd_b() {
	host_run B "$@" "$bin/ferryd" $(trust B) --listen 192.0.2.2 </dev/null >>"$dir/ferryd.out" 2>&1 &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen: $(tail -n 1 "$dir/ferryd.out")"
}

two_hosts() {
	host_up B 20000 && host_link A B || fail "no second host"
	make_keys
}

pair() {
	two_hosts
	ferryd_b
	start "$@"
}

# A program whose memory stays behind as a whole: what children share with it when it is frozen would go along.
childless() {
	pair ${1:-restless} env CHILDREN_LATER=1
}

# Where the daemon of the source is to pick up what is left
daemon_a() {
	host_run A "$bin/ferryd" $(trust A) --listen 192.0.2.1 </dev/null >>"$dir/ferryd-a.out" 2>&1 &
	within 10 host_run A sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd of A does not listen"
}

hook= migrator=$ferry # a point of test/faults, and a ferry that knows it
# In the background; $migration
migrate() {
	note "migrate $*"
	: >"$dir/out" # not what the last one said
	host_run A env FERRY_FAULT_DIR="$dir/fault" FERRY_FAULT="$hook" timeout -k 2 240 "$migrator" migrate "$pid" --to 192.0.2.2 $(trust A) --json -v4 -o "$dir/migrate.log" "$@" >"$dir/out" 2>&1 &
	migration=$!
}

fetching() { grep -q '"event":"running"' "$dir/out"; }
some_fetched() { [ "$(value fetch arrived)" -gt "${1:-100}" ] 2>/dev/null; }
value() { sed -n "s/.*\"event\":\"$1\".*\"$2\":\([0-9.]*\).*/\1/p" "$dir/out" | tail -n 1; }
begin() {
	migrate "$@"
	within 60 fetching || fail "it does not run at the destination: $(tail -n 1 "$dir/out")"
	within 30 some_fetched || fail "no pages come"
}

# A word of the state of the process that fetches: 12: it has come to its end; 16: its holder
pager_word() { host_run B sh -c 'od -An -td4 -N4 -j'"$1"' /run/ferry/journal/in/*.pages 2>/dev/null' | tr -d ' '; }
pages_are_missing() { [ "$(pager_word 12)" = 0 ]; }
in_time() { pages_are_missing || fail "all pages were there before $1: that proves nothing"; }

# strike HOST PID...: kill -9 while pages are missing
strike() {
	local host=$1
	shift
	note "strike $host $*"
	# Some may end with others that are killed before them.
	[ $# -gt 0 ] && host_run "$host" kill -0 "$1" && { host_run "$host" kill -9 "$@" 2>/dev/null || [ $# -gt 1 ]; } || fail "there is nobody to be killed"
	in_time "anything was killed"
}
second() { ferries "$1" | sed -n 2p; }

# The same, over a link that is slow from the start there on: by the hook of test/faults.
begin_slowly() {
	hook=source:committing:before:pause migrator=$bin/../faults/ferry
	[ -x "$migrator" ] || skip "no $migrator"
	mkdir "$dir/fault" && mkfifo "$dir/fault/reached" "$dir/fault/go"
	migrate --backend none --post-copy 1
	timeout 60 cat "$dir/fault/reached" >/dev/null || fail "it was never ready to start there: $(tail -n 1 "$dir/out")"
	very_slow
	timeout 60 sh -c 'echo x >"$0"' "$dir/fault/go" || fail "nobody waits to go on"
	within 60 fetching || fail "it does not run at the destination: $(tail -n 1 "$dir/out")"
	: >"$test/children"
	within 30 some_fetched || fail "no pages come"
}

journals_empty() {
	[ -z "$(host_run A sh -c 'ls /run/ferry/journal/out' 2>/dev/null)" ] &&
		[ -z "$(host_run B sh -c 'ls /run/ferry/journal/in | grep -E "pages|sock"; head -qn 1 /run/ferry/journal/in/* 2>/dev/null | grep -v " running "' 2>/dev/null)" ]
}
no_holder() { ! host_run B sh -c 'cat /proc/[0-9]*/comm' 2>/dev/null | grep -q ferry-hold; }

# It is in B alone, with all of its pages, and goes on
over() {
	within 180 journals_empty || fail "something is left: $(host_run A sh -c 'head -n 1 /run/ferry/journal/out/*' 2>&1) $(host_run B sh -c 'ls /run/ferry/journal/in; head -n 1 /run/ferry/journal/in/*' 2>&1 | tr '\n' ' ')"
	! alive A || fail "a copy is left at the source"
	within 5 no_holder || fail "the holder is left"
	finish B
}

ended() {
	wait $migration
	rc=$?
	[ $rc = 0 ] || fail "ferry migrate failed ($rc): $(tail -n 1 "$dir/out")"
}

counts() {
	local total=$(value fetch total) arrived=$(value fetch arrived) again=$(value fetch again)
	echo "$total pages, $(value fetch faults) faults, p50 $(value fetch p50_us) us, down $(value running downtime_ms) ms" >"$dir/summary"
	[ "$total" -gt 200 ] || fail "only $total pages were missing: that proves nothing"
	[ "$(value fetch left)" = 0 ] || fail "$(value fetch left) pages are left"
	# What was there is not fetched: all that came was missing, or was asked for once more while it was on its way.
	[ $((arrived - again)) -le "$total" ] || fail "$arrived pages came ($again of them twice), only $total were missing"
}

# A program that gives nothing back: each missing page comes, and only what was written since the last round is missing.
case_only_what_was_dirty() {
	pair hot-spot
	slow 200mbit # so that it gets to write all of it in each round
	migrate --post-copy 2
	ended
	counts
	[ $(($(value fetch arrived) - $(value fetch again))) = "$(value fetch total)" ] || fail "$(value fetch arrived) pages came ($(value fetch again) twice), not $(value fetch total)"
	[ "$(value fetch total)" -le 1100 ] || fail "$(value fetch total) pages were missing, 1024 are written at all"
	over
}

case_restless() {
	pair restless
	slow 200mbit
	begin --post-copy 1
	ended
	counts
	over
}

# No tracking at all: everything is missing.
case_everything() {
	pair restless
	slow 200mbit
	begin --backend none --post-copy 1
	ended
	counts
	over
}

# What was made of huge pages is so again (the program compares its smaps), also when another process has taken over in between
case_huge_pages() {
	pair thp
	slow 800mbit
	begin --backend none --post-copy 1
	ended
	counts
	over
}
case_huge_pages_killed() { case_kill_destination_worker thp; }

# Shared memory of which nobody has a descriptor stays behind, too, and is right in all processes
case_shared() {
	pair shared-restless
	slow 100mbit
	begin --backend none --post-copy 1
	ended
	counts
	[ "$(value fetch total)" -gt 2000 ] || fail "only $(value fetch total) pages were missing: shared memory was not left"
	over
}

# Of shared memory, too, only what was written since the last round is missing, and each page comes once.
case_shared_only_what_was_dirty() {
	pair shared-hot-spot
	slow 400mbit
	migrate --post-copy 3
	ended
	counts
	[ $(($(value fetch arrived) - $(value fetch again))) = "$(value fetch total)" ] || fail "$(value fetch arrived) pages came ($(value fetch again) twice), not $(value fetch total)"
	[ "$(value fetch total)" -le 1100 ] || fail "$(value fetch total) pages were missing, 1024 are written at all"
	over
}

case_shared_on_stall() {
	pair shared-hot-spot
	slow 200mbit
	begin --on-stall postcopy --downtime 20
	ended
	counts
	over
}

# Not without being told: what a program could do to such memory meanwhile is in docs/limits.md.
case_shared_by_default() {
	pair shared-hot-spot
	slow 200mbit
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 $(trust A) --json --downtime 20 -v4 -o "$dir/migrate.log"
	grep -q 'goes along unless --on-stall postcopy' "$dir/migrate.log" || fail "it did not say what goes along"
	[ "$(grep -c '"event":"running"' "$dir/out")" = 0 ] || fail "pages stayed behind"
	over
}

# When rounds do not get smaller
case_on_stall() {
	pair hot
	slow 200mbit
	begin --on-stall postcopy --downtime 20
	ended
	counts
	[ "$(grep -c '"event":"round"' "$dir/out")" -ge 3 ] || fail "it did not try"
	over
}

case_link_cut() {
	childless ${1:-restless}
	begin_slowly
	host_net B ip link set eth0 down
	in_time "the link was cut"
	sleep 1
	in_time "the link was cut"
	alive B || fail "it has ended without its pages"
	fast
	host_net B ip link set eth0 up
	ended
	counts
	over
}
case_shared_link_cut() { case_link_cut shared-restless; }

# The processes of ferry in host A, the command first; of ferryd in B
ferries() { host_run "$1" sh -c 'for p in /proc/[0-9]*; do case "$(cat $p/comm 2>/dev/null)" in ferry|ferryd) echo ${p#/proc/} ;; esac; done' | sort -n; }

case_kill_source_worker() {
	childless
	begin_slowly
	strike A $(second A)
	fast
	ended
	over
}

# While the link is cut: the destination does not hear of it. The next one is not kept waiting for what began to come from the first.
case_kill_source_worker_cut() {
	childless
	begin_slowly
	host_net B ip link set eth0 down
	strike A $(second A)
	fast
	host_net B ip link set eth0 up
	ended
	! grep -q 'timed out' "$dir/ferryd.out" || fail "a connection of the dead worker was waited for: $(grep 'timed out' "$dir/ferryd.out")"
	over
}

# Nobody is left at the source but the stopped original and its journal: whoever comes serves the rest.
case_kill_source() {
	childless ${1:-restless}
	begin_slowly
	strike A $(ferries A)
	wait $migration
	host_run A "$ferry" status >"$dir/status" 2>&1
	grep -q serving "$dir/status" || fail "ferry status does not show it: $(tail -n 1 "$dir/status")"
	in_time "nobody was left at the source"
	fast
	daemon_a
	over
}
case_shared_kill_source() { case_kill_source shared-restless; }

case_resume() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run A kill -9 $(ferries A)
	wait $migration
	uuid=$(host_run A ls /run/ferry/journal/out)
	must_fail 'has run at' "$ferry" resume "$uuid" --here
	must_fail 'only here, and would be lost' "$ferry" resume "$uuid" --there
	must_work "$ferry" resume "$uuid" $(trust A)
	over
}

case_cancel() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	must_work "$ferry" cancel "$pid"
	wait $migration && fail "a cancelled migration reports success"
	grep -q 'pages of it are still here' "$dir/out" || fail "it does not say what is missing: $(tail -n 1 "$dir/out")"
	alive A || fail "the pages are gone"
	must_work "$ferry" resume $(trust A)
	over
}

# The worker at the destination: the holder keeps what is missing missing.
case_kill_destination_worker() {
	childless ${1:-restless}
	begin_slowly
	strike B $(second B)
	fast
	ended
	over
}

case_shared_kill_destination_worker() { case_kill_destination_worker shared-restless; }

# Again and again, while children come and go: descriptors of memory that has ended are nobody's, and their numbers are used again.
case_kill_worker_often() {
	childless
	begin_slowly
	for _ in 1 2 3 4; do
		sleep 1.2
		strike B $(second B)
		within 15 eval "alive B && host_run B ls /run/ferry/journal/in | grep -q sock" || fail "nobody goes on"
	done
	fast
	ended
	over
}

case_kill_destination() {
	childless
	begin_slowly
	kill_ferryd
	in_time "ferryd was killed"
	sleep 1
	alive B || fail "it has ended without its pages"
	fast
	ferryd_b
	ended
	over
}

# In order: it lets go, and the next one goes on.
case_restart_destination() {
	childless
	begin_slowly
	host_run B kill "$(ferries B | head -n 1)"
	within 10 no_ferryd || fail "ferryd does not end"
	in_time "ferryd had ended"
	alive B || fail "it has ended without its pages"
	fast
	ferryd_b
	ended
	over
}
no_ferryd() { [ -z "$(ferries B)" ]; }

# Twice, and with the one that holds them killed before: another one is there by then.
case_kill_holder() {
	childless ${1:-restless}
	begin_slowly
	local holder=$(pager_word 16)
	strike B $holder
	within 10 another_holder "$holder" || fail "no other holder comes"
	strike B $(second B)
	fast
	ended
	over
}
another_holder() { [ "$(pager_word 16)" != "$1" ]; }
case_shared_kill_holder() { case_kill_holder shared-restless; }
has_holder() { ! no_holder; }

# Children that were forked since the last round start without their own pages, too.
case_brood() {
	pair brood
	slow 100mbit
	begin --post-copy 2
	ended
	counts
	over
}

# Nobody asked for it: a program that writes faster than the link is started there all the same
case_by_default() {
	pair hot
	slow 200mbit
	begin --downtime 20
	ended
	counts
	over
}

# ... but where the destination cannot; the output says so
case_not_possible() {
	two_hosts
	ferryd_b "$programs/helpers/no-uffd"
	start hot
	slow 200mbit
	must_fail 'cannot start a program whose pages are still on their way' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --on-stall postcopy
	alive A || fail "the target is gone"
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --downtime 20
	grep -q 'cannot start a program whose pages are still on their way.*--on-stall stop' "$dir/out" || fail "it does not say that it could not"
	! grep -q 'runs there after' "$dir/out" || fail "it was started early"
	over
}

case_tls() {
	tls=yes
	case_everything
}

case_tls_only_what_was_dirty() {
	tls=yes
	case_only_what_was_dirty
}

case_tls_link_cut() {
	tls=yes
	case_link_cut
}

case_tls_kill_source() {
	tls=yes
	case_kill_source
}

case_tls_kill_destination_worker() {
	tls=yes
	case_kill_destination_worker
}

case_tls_kill_destination() {
	tls=yes
	case_kill_destination
}

# The machine of the destination ends with all that ran there. What is here is of before the start there: only an operator may go back to it,
# and only when that machine says that it was restarted.
case_go_back() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run A kill -9 $(ferries A)
	wait $migration
	uuid=$(host_run A ls /run/ferry/journal/out)
	must_fail 'runs at .*cannot run on here' "$ferry" resume "$uuid" --here --force $(trust A)
	alive A && alive B || fail "one of the copies is gone"
	kill -KILL "${HOST_INIT[B]}" "${HOST_OUTER[B]}"
	wait "${HOST_OUTER[B]}" 2>/dev/null
	must_fail 'does not say that it has been restarted' "$ferry" resume "$uuid" --here --force $(trust A)
	host_net A ip link delete eth0 2>/dev/null
	two_hosts
	ferryd_b
	must_fail 'has run at' "$ferry" resume "$uuid" --here
	must_work "$ferry" resume "$uuid" --here --force $(trust A)
	grep -q 'is lost' "$dir/out" || fail "it does not say what is lost"
	[ -z "$(host_run A ls /run/ferry/journal/out)" ] || fail "the journal is left"
	finish A
}

# The same, with the operator's command killed (by the hook of test/faults) before and after the decision is in the journal. Nothing runs on by
# that; the next one, or ferryd, brings it to an end.
case_go_back_killed() {
	local when=$1 faulty=$bin/../faults/ferry
	[ -x "$faulty" ] || skip "no $faulty"
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run A kill -9 $(ferries A)
	wait $migration
	uuid=$(host_run A ls /run/ferry/journal/out)
	kill -KILL "${HOST_INIT[B]}" "${HOST_OUTER[B]}"
	wait "${HOST_OUTER[B]}" 2>/dev/null
	host_net A ip link delete eth0 2>/dev/null
	two_hosts
	ferryd_b
	mkdir "$dir/fault"
	host_run A env FERRY_FAULT_DIR="$dir/fault" FERRY_FAULT=source:stayed:$when:kill-all timeout -k 2 30 "$faulty" resume "$uuid" --here --force --insecure >"$dir/killed.out" 2>&1
	[ -e "$dir/fault/struck.source" ] || fail "the point was never reached: $(tail -n 1 "$dir/killed.out")"
	[ "$(host_run A sh -c 'read -r line <"/proc/$0/stat"; set -- ${line##*) }; echo $1' "$pid")" = T ] || fail "the original does not stand still"
	if [ $when = before ]; then
		must_work "$ferry" resume "$uuid" --here --force --insecure
	else
		daemon_a
		within 10 journals_empty || fail "the journal is left"
		host_run A kill -9 $(ferries A)
	fi
	finish A
}
case_go_back_killed_before() { case_go_back_killed before; }
case_go_back_killed_after() { case_go_back_killed after; }

# What makes a scope for the tree moves its processes: the holder goes along, and what is outside of it can be ended.
case_scope() {
	scope=/sys/fs/cgroup/memory/ferry-scope-$BASHPID # not local: for the trap
	[ -d /sys/fs/cgroup/memory ] || scope=/sys/fs/cgroup/ferry-scope-$BASHPID
	mkdir "$scope" 2>/dev/null || skip "no cgroups here"
	trap 'host_down; within 5 rmdir "$scope"' EXIT
	childless
	begin_slowly
	host_run B sh -c 'echo "$0" >"$1/cgroup.procs"' "$pid" "$scope" || skip "processes cannot be put into a cgroup here"
	within 5 holder_in "${scope##*/}" || fail "the holder is not where the tree is"
	kill_ferryd
	in_time "ferryd was killed"
	sleep 1
	alive B || fail "it has ended without its pages"
	has_holder || fail "the holder has ended with ferryd"
	fast
	ferryd_b
	ended
	over
}
holder_in() { host_run B sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = ferry-hold ] && grep -q "/$0$" $p/cgroup && exit 0; done; exit 1' "$1"; }

# By name only, as they take long: huge_pages shared kill_worker_often tls_kill_source tls_only_what_was_dirty tls_link_cut tls_kill_destination_worker tls_kill_destination.
run_cases "only_what_was_dirty restless everything huge_pages_killed shared_kill_destination_worker shared_kill_holder shared_kill_source shared_link_cut shared_only_what_was_dirty shared_on_stall shared_by_default on_stall link_cut kill_source_worker kill_source resume cancel kill_destination_worker kill_destination restart_destination kill_holder brood by_default not_possible go_back go_back_killed_before go_back_killed_after scope tls" "$@"
