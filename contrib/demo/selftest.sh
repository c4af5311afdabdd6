#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Proves that the client of the demo sees what it is there to see:  selftest.sh PATH/ferry-demo-load
# A quiet server and one whose connections are cut must pass; a key removed, a key changed, a server that falls back to an
# older copy of its data must not.
set -u
load=$1
# In a network of its own, so that ports and other servers of the machine do not matter.
if [ "${2-}" != inside ]; then
	exec unshare --net -- "$0" "$load" inside
fi
ip link set lo up
work=$(mktemp -d "${TMPDIR:-/tmp}/ferry-selftest.XXXXXX")
client=
declare -A server=()
program=$(command -v redis-server) || { ln -s "$(command -v redis-check-rdb)" "$work/redis-server" && program=$work/redis-server; }

finish() {
	kill -KILL "${server[@]}" $client 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

cli() { redis-cli -h 127.0.0.1 -p "$@" >/dev/null; }

serve() {
	(cd "$work" && exec "$program" --port "$1" --bind 127.0.0.1 --save "" --appendonly no) </dev/null >"$work/server.$1" 2>&1 &
	server[$1]=$!
	for _ in $(seq 200); do
		cli "$1" ping 2>/dev/null && return
		sleep 0.05
	done
	echo "redis-server does not start"
	exit 1
}

begin() {
	"$load" -k 5000 -s 128 -c 2 "$@" >"$work/out" 2>"$work/err" &
	client=$!
	until grep -q ^filled "$work/out"; do sleep 0.05; done
}

# end NAME WANTED_RC
end() {
	sleep 0.5
	kill -TERM $client
	wait $client
	local rc=$?
	client=
	if [ $rc = "$2" ]; then
		echo "ok   $1: $(tail -n 1 "$work/out")"
	else
		echo "FAIL $1: ended with $rc, not $2: $(tail -n 1 "$work/out") $(head -n 3 "$work/err")"
		bad=1
	fi
}

bad=0
serve 7001
serve 7002
begin 127.0.0.1:7001
end "a quiet server" 0
begin 127.0.0.1:7001
cli 7001 client kill type normal
end "connections cut" 0
grep -q 'reconnects=2' "$work/out" || { echo "FAIL the reconnects were not counted"; bad=1; }
begin -w 1 -r 200 127.0.0.1:7001
cli 7001 del key:00000017
end "a key removed" 1
begin -w 1 -r 200 127.0.0.1:7001
cli 7001 set key:00000018 hello
end "a key changed" 1
cli 7002 replicaof 127.0.0.1 7001
for _ in $(seq 100); do
	redis-cli -h 127.0.0.1 -p 7002 info replication | grep -q master_link_status:up && break
	sleep 0.1
done
begin 127.0.0.1:7001 127.0.0.1:7002
sleep 0.5
cli 7002 replicaof no one
sleep 0.5
kill -KILL "${server[7001]}"
wait "${server[7001]}" 2>/dev/null
end "an older copy of the server" 1
exit $bad
