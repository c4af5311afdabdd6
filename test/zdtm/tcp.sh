#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# TCP connections to a client on a third host:   tcp.sh [CASE]...
# The client streams on half of its connections and asks on the others, and checks each byte that comes back. The server's address moves with it.
# In the end the client has seen no error, and no table of nf_tables is left.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"
service=192.0.2.10
family=4
port=7000
connections=50

# A and B on a bridge in C, where the client is.
net_up() {
	host_up B 20000 && host_up C 40000 || fail "no hosts"
	host_net C ip link add br0 type bridge && host_net C ip link set br0 up && host_net C ip addr add 192.0.2.9/24 dev br0 || skip "no bridge in this kernel"
	local h n=1
	for h in A B; do
		host_net C ip link add "to$h" type veth peer name eth0 netns "${HOST_INIT[$h]}" &&
			host_net C ip link set "to$h" master br0 up &&
			host_net $h ip addr add 192.0.2.$n/24 dev eth0 && host_net $h ip link set eth0 up || fail "no network"
		n=2
	done
	if [ $family = 6 ]; then
		host_net C ip addr add 2001:db8::9/64 dev br0 nodad
		host_net A ip addr add 2001:db8::1/64 dev eth0 nodad && host_net B ip addr add 2001:db8::2/64 dev eth0 nodad || skip "no IPv6"
		host_net A ip addr add $service/64 dev eth0 nodad
	else
		host_net A ip addr add $service/24 dev eth0
	fi
}

daemon() {
	host_run "$1" "$bin/ferryd" --insecure -v4 --listen "$2" </dev/null >>"$dir/ferryd-$1.out" 2>&1 &
	within 10 host_run "$1" sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd of $1 does not listen"
}

server_up() {
	host_run A setsid "$programs/helpers/tcp-server" "${1:-$service}" $port "$dir/server.pid" </dev/null >/dev/null 2>&1 &
	within 10 test -s "$dir/server.pid" || fail "no server"
	read -r pid <"$dir/server.pid"
}

client_up() {
	host_run C "$programs/helpers/tcp-client" $service $port $connections "$dir/client" </dev/null >/dev/null 2>&1 &
	within 20 test -s "$dir/client" || fail "the client does not connect"
	sleep 0.3
}

all_up() {
	net_up
	daemon B 192.0.2.2
	[ "${1:-}" != both ] || daemon A 192.0.2.1
	server_up
	client_up
}

# migrate FROM TO-ADDRESS [OPTIONS]: exit code in $rc
migrate() {
	local from=$1 to=$2
	shift 2
	note "[$from] migrate to $to $*"
	host_run "$from" timeout -k 2 60 "$ferry" migrate "$pid" --to "$to" --insecure --tcp-established --move-address -v4 -o "$dir/migrate.log" "$@" >"$dir/out" 2>&1
	rc=$?
	note "exit code $rc: $(tail -n 1 "$dir/out" | cut -c 1-300)"
}

client_is_well() {
	[ ! -e "$dir/server.pid.error" ] || fail "$(cat "$dir/server.pid.error")"
	case $(cat "$dir/client") in
	connected | ok*) ;;
	*) fail "$(cat "$dir/client")" ;;
	esac
}

# It goes on for some time, and gets everything back.
client_ends_well() {
	client_is_well
	sleep "${1:-0.5}"
	client_is_well
	: >"$dir/client.stop"
	within 70 grep -q '^ok\|:' "$dir/client" || fail "the client does not end"
	client_is_well
	read -r _ bytes requests longest <"$dir/client"
	[ "$requests" -gt 10 ] && [ "$bytes" -gt $((connections * 1000)) ] || fail "next to nothing was sent: $bytes bytes, $requests requests"
	echo "$bytes bytes, $requests requests, longest $longest ms, $(retransmissions) sent again" >"$dir/summary"
}

# Tables of nf_tables in a host, by what /proc and the kernel tell without the nft program
tables() { host_run "$1" "$programs/helpers/nf-tables"; }
no_tables() {
	local h
	for h in A B; do
		[ -z "$(tables $h)" ] || return 1
	done
}

# By the client
retransmissions() { host_run C awk '/^Tcp:/ && $13 != "RetransSegs" { print $13 }' /proc/net/snmp; }

has_address() { host_net "$1" ip addr show dev eth0 | grep -q "inet6* $service/"; }

case_ten_migrations() {
	local i
	all_up both
	for i in 1 2 3 4 5; do
		migrate A 192.0.2.2
		[ $rc = 0 ] || fail "migration $i to B failed ($rc): $(tail -n 1 "$dir/out")"
		alive B || fail "it is not in B"
		has_address B && ! has_address A || fail "the address did not move to B"
		client_is_well
		sleep 0.2
		migrate B 192.0.2.1
		[ $rc = 0 ] || fail "migration $i to A failed ($rc): $(tail -n 1 "$dir/out")"
		alive A || fail "it is not in A"
		has_address A && ! has_address B || fail "the address did not move to A"
		client_is_well
		sleep 0.2
	done
	client_ends_well
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
	grep -hq ' [1-9][0-9]* of [0-9]* packets that came meanwhile handed in' "$dir"/ferryd-*.out || fail "no packet was handed in"
}

case_ten_migrations6() {
	family=6
	service=2001:db8::10
	case_ten_migrations
}

# The program runs there before its memory does: its connections never see it.
case_post_copy() {
	local i
	all_up both
	for i in 1 2 3; do
		migrate A 192.0.2.2 --post-copy 1
		[ $rc = 0 ] || fail "migration $i to B failed ($rc): $(tail -n 1 "$dir/out")"
		alive B && has_address B && ! has_address A || fail "it is not in B, or its address is not"
		client_is_well
		migrate B 192.0.2.1 --post-copy 1
		[ $rc = 0 ] || fail "migration $i to A failed ($rc): $(tail -n 1 "$dir/out")"
		alive A && has_address A && ! has_address B || fail "it is not in A, or its address is not"
		client_is_well
	done
	client_ends_well
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
	grep -hq ' is DEST_FETCHING\|fetching' "$dir"/ferryd-*.out || fail "nothing was fetched"
	grep -hq ' [1-9][0-9]* of [0-9]* packets that came meanwhile handed in' "$dir"/ferryd-*.out || fail "no packet was handed in"
}

ferries() { host_run A sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != ferry ] || echo ${p#/proc/}; done'; }
serving() { grep -q serving "$dir/migrate.log"; }
journals_empty() { [ -z "$(host_run A sh -c 'ls /run/ferry/journal/out 2>/dev/null')$(host_run B sh -c 'ls /run/ferry/journal/in 2>/dev/null')" ]; }

# Who serves its pages is killed: ferryd does it then, and takes away what held packets back.
case_post_copy_source_killed() {
	all_up both
	host_net A tc qdisc add dev eth0 root tbf rate 16mbit burst 64k latency 50ms 2>/dev/null || skip "no tbf in this kernel"
	migrate A 192.0.2.2 --backend none --post-copy 1 &
	within 40 serving || fail "nothing is left at the source: $(tail -n 1 "$dir/out")"
	host_run A kill -9 $(ferries)
	wait $!
	[ -n "$(tables A)" ] || fail "packets are not held back at the source any more, though its copy is there"
	host_net A tc qdisc change dev eth0 root tbf rate 1gbit burst 1m latency 50ms
	within 60 journals_empty || fail "it does not come to an end"
	alive B && ! alive A || fail "it does not run in B alone"
	client_ends_well
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
}

# Until the client sends again what has no answer: that comes while the server is frozen.
sent_again_in_freeze() {
	local before
	within 30 test -e "$dir/script.now"
	before=$(retransmissions)
	within 20 more_sent_again "$before"
	local r=$?
	: >"$dir/script.go"
	return $r
}
more_sent_again() { [ "$(retransmissions)" -gt "$1" ]; }

# An error at the very end: everything goes on as before.
case_abort() {
	local i
	all_up
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || { echo >"$0.now"; while [ ! -e "$0.go" ]; do sleep 0.02; done; exit 1; }\n' >"$dir/script"
	chmod 755 "$dir/script"
	for i in 1 2 3; do
		rm -f "$dir/script.now" "$dir/script.go"
		sent_again_in_freeze &
		migrate A 192.0.2.2 --action-script "$dir/script"
		wait $! || fail "nothing came while the server was frozen"
		[ $rc != 0 ] || fail "the migration should have failed"
		grep -q '[1-9][0-9]* of [0-9]* packets that came meanwhile handed in' "$dir/migrate.log" || fail "no packet was handed in"
		alive A || fail "the server is gone"
		client_is_well
		has_address A || fail "the address is gone"
	done
	client_ends_well 1
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
}

# The worker at the source is killed while the target is frozen for the hand-over, by a script that it runs.
case_kill_worker() {
	all_up
	printf '#!/bin/sh\nread -r _ _ _ worker _ <"/proc/$$/stat"\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || kill -9 "$worker"\n' >"$dir/script"
	chmod 755 "$dir/script"
	migrate A 192.0.2.2 --action-script "$dir/script"
	[ $rc != 0 ] || fail "the migration should have failed"
	grep -q 'killed' "$dir/out" || fail "the worker was not killed: $(tail -n 1 "$dir/out")"
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
	alive A || fail "the server is gone"
	client_ends_well 1
}

# ferryd at the destination, killed between READY and COMMIT; the next one says that nothing has started.
case_kill_ferryd() {
	all_up
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || { echo >"%s/now"; sleep 1; }\n' "$dir" >"$dir/script"
	chmod 755 "$dir/script"
	migrate A 192.0.2.2 --action-script "$dir/script" &
	local migration=$!
	within 30 test -e "$dir/now" || fail "it did not come to the hand-over: $(tail -n 1 "$dir/out")"
	kill_ferryd
	sleep 0.5
	daemon B 192.0.2.2
	wait $migration
	within 20 alive A || fail "the server is gone"
	within 10 no_tables || fail "tables are left: $(tables A) $(tables B)"
	has_address A && ! has_address B || fail "the address is not where the server is"
	client_ends_well 1
}

signal_ferryd() {
	host_run B sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = ferryd ] && kill -$0 ${p#/proc/}; done; :' "$1" 2>/dev/null
}

# The worker at the source, killed when COMMIT has left and ferryd has not read it yet: the successor ends the copy silently, and the address leaves.
case_kill_worker_in_doubt() {
	all_up
	printf '#!/bin/sh\nread -r _ _ _ worker _ <"/proc/$$/stat"\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || { echo "$worker" >"%s/worker"; sleep 1; }\n' "$dir" >"$dir/script"
	chmod 755 "$dir/script"
	migrate A 192.0.2.2 --action-script "$dir/script" &
	local migration=$!
	within 30 test -s "$dir/worker" || fail "it did not come to the hand-over: $(tail -n 1 "$dir/out")"
	signal_ferryd STOP
	within 10 grep -q '"state":"committing"' "$dir/migrate.log" || fail "no commit"
	sleep 0.2
	host_run A sh -c 'kill -9 "$(cat "$0/worker")"' "$dir"
	sleep 0.3
	tables A | grep -q ferry-kept || fail "nothing holds the packets back"
	signal_ferryd CONT
	wait $migration
	within 10 alive B || fail "the server is not in B"
	! alive A || fail "the copy is still there"
	within 10 no_tables || fail "tables are left: $(tables A) $(tables B)"
	has_address B && ! has_address A || fail "the address is not where the server is"
	client_ends_well 1
}

# The process at work on one side, killed at a change of its state (test/faults). Whoever comes after it brings connections, address and rules in order.
struck_at() {
	local point=$1 side=${1%%:*}
	[ -x "$bin/../faults/ferryd" ] || skip "test/faults is not built"
	connections=1
	bin=$bin/../faults
	ferry=$bin/ferry
	mkdir -m 777 "$dir/fault"
	net_up
	daemon A 192.0.2.1
	if [ "$side" = destination ]; then
		FERRY_FAULT=$point FERRY_FAULT_DIR=$dir/fault daemon B 192.0.2.2
	else
		daemon B 192.0.2.2
	fi
	server_up
	client_up
	if [ "$side" = source ]; then
		FERRY_FAULT=$point FERRY_FAULT_DIR=$dir/fault migrate A 192.0.2.2
	else
		migrate A 192.0.2.2
	fi
	[ -e "$dir/fault/struck.$side" ] || fail "the point was never reached"
	within 20 in_one_place || fail "server in $(alive A && echo A) $(alive B && echo B), address in $(has_address A && echo A) $(has_address B && echo B)"
	within 20 no_tables || fail "tables are left: $(tables A) $(tables B)"
	client_ends_well
}

# With its address
in_one_place() {
	if alive A; then
		! alive B && has_address A && ! has_address B
	else
		alive B && has_address B && ! has_address A
	fi
}

case_destination_committed() { struck_at destination:committed:after:kill; }
case_destination_starting() { struck_at destination:starting:after:kill; }
case_destination_running() { struck_at destination:running:after:kill; }
case_source_sent() { struck_at source:sent:after:kill; }
case_source_committing() { struck_at source:committing:after:kill; }
case_source_moved() { struck_at source:moved:after:kill; }

# Connections that nobody has accepted when the server is stopped: it runs on until it has done so. On a slow machine that may be too late for
# the first time.
case_backlog() {
	local i
	connections=3
	: >"$dir/server.pid.later"
	all_up
	: >"$dir/migrate.log"
	migrate A 192.0.2.2 &
	local migration=$!
	within 30 grep -q 'wait to be accepted at 1 sockets: the target runs on' "$dir/migrate.log" || fail "it did not wait for the server: $(tail -n 1 "$dir/out")"
	rm "$dir/server.pid.later"
	wait $migration
	for i in 1 2 3; do
		alive A || break
		migrate A 192.0.2.2
		[ $rc = 0 ] || grep -q 'wait to be accepted' "$dir/out" || fail "the migration failed ($rc): $(tail -n 1 "$dir/out")"
	done
	in_one_place && alive B || fail "the server is not in B"
	client_ends_well
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
}

# The server never accepts them: refused after some time, and nothing is left.
case_backlog_stays() {
	connections=3
	: >"$dir/server.pid.later"
	all_up
	migrate A 192.0.2.2
	said_error "3 TCP connections wait to be accepted at $service:$port" migrate
	alive A || fail "the server is gone"
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
	rm "$dir/server.pid.later"
	client_ends_well
}

# The address is at the destination already, and nobody has told the neighbours, who do not ask by themselves here.
case_address_in_both() {
	connections=2
	all_up
	host_net B ip addr add $service/32 dev eth0
	host_net B ip neigh replace 192.0.2.9 lladdr "$(host_net C ip -o link show br0 | sed 's/.*ether \([^ ]*\).*/\1/')" dev eth0 || fail "no neighbour"
	host_run C sh -c 'echo 1000 >/proc/sys/net/ipv4/neigh/br0/delay_first_probe_time'
	migrate A 192.0.2.2
	[ $rc = 0 ] || fail "the migration failed ($rc): $(tail -n 1 "$dir/out")"
	in_one_place || fail "the server, or its address, is not in B"
	client_ends_well
}

# Without the address there: refused before anything is done.
case_no_address() {
	all_up
	take_snapshot proc.before
	note "[A] migrate without --move-address"
	host_run A timeout -k 2 60 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --tcp-established -v4 -o "$dir/migrate.log" >"$dir/out" 2>&1
	rc=$?
	said_error "pid $pid fd [0-9]*: .*$service:$port.*is not .*this host" migrate
	alive A || fail "the server is gone"
	client_ends_well
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
}

# Into an image and back, with seconds in between.
case_dump() {
	all_up
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4 --tcp-established
	! alive A || fail "the server is still there"
	tables A | grep -q ferry-kept || fail "nothing holds the packets back"
	sleep 1
	client_is_well
	must_fail 'established TCP connection' "$ferry" restore -D "$dir/images" -o restore.log -v4 -d
	client_is_well
	must_work "$ferry" restore -D "$dir/images" -o restore.log -v4 -d --tcp-established
	within 5 no_tables || fail "tables are left: $(tables A) $(tables B)"
	client_ends_well
}

run_cases "ten_migrations ten_migrations6 abort kill_worker kill_worker_in_doubt kill_ferryd destination_committed destination_starting destination_running source_sent source_committing source_moved post_copy post_copy_source_killed backlog backlog_stays address_in_both no_address dump" "$@"
