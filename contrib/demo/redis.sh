#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Live-migrates a redis-server under load between two test hosts on this machine, and checks every key.
#   redis.sh [--times N] [--keys N] [--value BYTES] [--connections N] [--rate REQUESTS/S] [--no-build] [--keep]
#            [--link MBIT/S] [--rtt MS] [--downtime MS] [--on-stall WHAT] [--reports DIR] [--reconnect]
# The connections of the client, which is on a third host, move along, with the address that it connects to (--tcp-established
# --move-address of ferry); with --reconnect they are closed, and the client looks for the server.
# --times 10 moves it ten times, there and back again (default 2); --rate limits the requests of the client (default 0:
# as many as it can); --keep keeps the logs. FERRY_BIN_DIR: another ferry than build/bin, with --no-build.
# --link and --rtt make the hosts far apart: the rate of the link (tbf), and the time of a way there and back, of what ferry
# sends (by a relay); --downtime and --on-stall are those of ferry migrate, and each move has to keep the one or go to post-copy
# if the other says so. --reports keeps ferry's reports there.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
bin=${FERRY_BIN_DIR:-$top/build/bin}
tcp=yes
times=2 keys=200000 value=512 connections=4 rate=0 build=yes keep=
link=0 rtt=0 downtime= stall= reports=
port=6379
service=192.0.2.10 # moves with the server
declare -A ADDRESS=([A]=192.0.2.1 [B]=192.0.2.2)

usage() {
	sed -n '4,12s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

while [ $# -gt 0 ]; do
	case $1 in
	--times | --keys | --value | --connections | --rate | --link | --rtt | --downtime)
		[[ ${2-} =~ ^[0-9]+$ ]] || usage
		printf -v "${1#--}" %s "$2"
		shift
		;;
	--on-stall | --reports)
		[ -n "${2-}" ] || usage
		[ "$1" = --reports ] && reports=$2 || stall=$2
		shift
		;;
	--no-build) build= ;;
	--keep) keep=yes ;;
	--reconnect) tcp= ;;
	*) usage ;;
	esac
	shift
done

bold= plain=
[ -t 1 ] && bold=$'\e[1m' plain=$'\e[0m'
say() { printf '%s\n' "$*"; }
step() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
die() {
	printf 'redis.sh: %s\n' "$*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || die "must be run as root: it makes namespaces and traces processes"
if [ -n "$build" ]; then
	"$top/contrib/install-packages" demo || die "packages are missing"
	step "Building"
	(cd "$top" && cmake --preset release -G Ninja >/dev/null && cmake --build --preset release >/dev/null) ||
		die "the build failed; see: cmake --build --preset release"
fi
load=$bin/../demo/ferry-demo-load
relay=$bin/../bench/bench-relay
[ "$rtt" != 0 ] || relay=
for program in "$bin/ferry" "$bin/ferryd" "$load" ${relay:+"$relay"}; do
	[ -x "$program" ] || die "$program is not there"
done
. "$top/test/zdtm/hosts.sh"

# What this shell has inherited must not be inherited by what is moved: its other end would be left behind.
for fd in /proc/$$/fd/*; do
	fd=${fd##*/}
	case $fd in [012] | 255) ;; *) eval "exec $fd>&-" ;; esac
done
work=$(mktemp -d "${TMPDIR:-/tmp}/ferry-demo.XXXXXX")
chmod 755 "$work"
client=
finish() {
	local rc=$?
	trap - EXIT INT TERM
	[ -z "$client" ] || kill -KILL "$client" 2>/dev/null
	host_down
	if [ $rc = 0 ] && [ -z "$keep" ]; then
		rm -rf "$work"
	else
		say "The logs are in $work"
	fi
	exit $rc
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_until SECONDS CMD...
wait_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.02
	done
}

listens() { host_net "$1" cat /proc/net/tcp /proc/net/tcp6 | grep -qi ":$(printf %04X "$2") .* 0A "; }

# The server's own word for which process it is: it changes when a server starts anew.
server_info() {
	host_net "$1" redis-cli -h "${ADDRESS[$1]}" -p $port info server | tr -d '\r' | sed -n "s/^$2://p"
}

thousands() { sed -E ':a; s/^([0-9]+)([0-9]{3})/\1,\2/; ta' <<<"$1"; }
mib() { awk -v n="$1" 'BEGIN { printf "%.1f", n / 1048576 }'; }
# field NAME LINE: the number after NAME= in a line of the client.
field() { sed -nE "s/.*(^| )$1=([0-9.]+).*/\2/p" <<<"$2"; }
# done_field NAME FILE: a number of the last event "done" (JSON, one object a line).
done_field() {
	grep -E '"event": *"done"' "$2" | tail -n 1 | grep -oE "\"$1\": *[0-9.e+-]+" | head -n 1 |
		awk -F: '{ printf $2 == int($2) ? "%.0f" : "%.1f", $2 }'
}

# A and B on a switch in C, where the client is. A has the service address.
bridge() {
	local host
	host_up C 40000 && host_net C ip link add br0 type bridge && host_net C ip link set br0 up && host_net C ip addr add 192.0.2.9/24 dev br0 || return
	for host in A B; do
		host_net C ip link add "to$host" type veth peer name eth0 netns "${HOST_INIT[$host]}" && host_net C ip link set "to$host" master br0 up &&
			host_net $host ip addr add "${ADDRESS[$host]}/24" dev eth0 && host_net $host ip link set eth0 up || return
	done
	host_net A ip addr add $service/24 dev eth0
}

start_hosts() {
	step "Starting two hosts, each with a network, processes and mounts of its own, and a ferryd"
	host_up A 1000 && host_up B 20000 || die "cannot make the test hosts"
	if [ -n "$tcp" ]; then bridge; else host_link A B; fi || die "cannot join the test hosts${tcp:+ by a bridge (--reconnect does without)}"
	for host in A B; do
		[ "$link" = 0 ] || host_net $host tc qdisc add dev eth0 root tbf rate "${link}mbit" burst 64k latency 50ms ||
			die "the link cannot be made slow: no tbf in this kernel"
		host_run $host "$bin/ferryd" --insecure --listen "${ADDRESS[$host]}" </dev/null >"$work/ferryd.$host" 2>&1 &
		wait_until 10 listens $host 7471 || die "ferryd does not listen in host $host: $(tail -n 1 "$work/ferryd.$host")"
		[ -n "$relay" ] || continue
		host_run $host "$relay" "$(awk -v r="$rtt" 'BEGIN { print r / 2 }')" "${ADDRESS[$host]}" 7472 "${ADDRESS[$host]}" 7471 \
			</dev/null >"$work/relay.$host" 2>&1 &
		wait_until 10 listens $host 7472 || die "the relay does not listen in host $host: $(tail -n 1 "$work/relay.$host")"
	done
}

start_redis() {
	local server
	server=$(command -v redis-server) || {
		# The same program under another name, when only redis-tools is installed.
		ln -s "$(command -v redis-check-rdb)" "$work/redis-server" && server=$work/redis-server
	}
	mkdir "$work/redis"
	host_run A setsid -f sh -c 'cd "$1" && echo $$ >pid && shift && exec "$@" </dev/null >log 2>&1' start "$work/redis" \
		"$server" --port $port --bind 0.0.0.0 --protected-mode no --save "" --appendonly no
	wait_until 10 listens A $port || die "redis-server did not start: $(tail -n 1 "$work/redis/log")"
	read -r pid <"$work/redis/pid"
}

start_client() {
	# In the network of its host, but outside of the processes: its pids get in nobody's way.
	local client_host=A addresses=("${ADDRESS[A]}:$port" "${ADDRESS[B]}:$port")
	[ -z "$tcp" ] || { client_host=C && addresses=("$service:$port"); }
	host_net "$client_host" sh -c 'echo $$ >"$1"; shift; exec "$@"' client "$work/client.pid" "$load" -k "$keys" -s "$value" -c "$connections" \
		-r "$rate" "${addresses[@]}" >"$work/client" 2>"$work/client.err" &
	wait_until 10 [ -s "$work/client.pid" ] || die "the client did not start"
	read -r client <"$work/client.pid"
	wait_until 120 grep -q '^filled' "$work/client" || die "the client could not fill the server: $(tail -n 1 "$work/client.err")"
}

# Print the client's line about the time since the last mark.
mark() {
	local before
	before=$(grep -c '^mark' "$work/client")
	kill -USR1 "$client" 2>/dev/null || die "the client has ended: $(tail -n 1 "$work/client.err")"
	wait_until 10 more_marks "$before" || die "the client does not answer"
	grep '^mark' "$work/client" | tail -n 1
}
more_marks() { [ "$(grep -c '^mark' "$work/client")" -gt "$1" ]; }

memory_of() { host_run "$1" awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$pid/status"; }

# Of a link that was made slow: did it keep the budget?
how_it_went() {
	local faults
	if grep -q '"event": *"running"' "$1"; then
		faults=$(grep '"event": *"fetch"' "$1" | grep -oE '"faults": *[0-9]+' | tail -n 1 | grep -oE '[0-9]+')
		printf 'post-copy: %s MiB missing, %s faults' "$(mib "$(($(grep '"event": *"running"' "$1" | grep -oE '"left": *[0-9]+' |
			grep -oE '[0-9]+') * 4096))")" "${faults:-0}"
	elif [ "$link" != 0 ] || [ "$rtt" != 0 ]; then
		awk -v d="$2" -v b="${downtime:-50}" 'BEGIN { printf "%s the budget of %d ms", d <= b ? "kept" : "over", b }'
	fi
}

one_move() {
	local n=$1 from=$2 to=$3 events=$work/migrate.$1 line rc where=${ADDRESS[$3]} how down connections=(--tcp-close)
	[ -z "$tcp" ] || connections=(--tcp-established --move-address)
	[ "$rtt" = 0 ] || where=$where:7472
	host_run "$from" "$bin/ferry" migrate "$pid" --to "$where" --insecure "${connections[@]}" --json ${downtime:+--downtime "$downtime"} \
		${stall:+--on-stall "$stall"} ${reports:+--report-dir "$reports"} >"$events" 2>"$events.err"
	rc=$?
	sleep 0.5
	line=$(mark) || exit 1
	if [ $rc != 0 ]; then
		failure="move $n ($from to $to) failed with $rc: $(grep -h Error "$events.err" "$events" | tail -n 1)"
		printf '  %3d  %s to %s   %s\n' "$n" "$from" "$to" "failed"
		return 1
	fi
	[ -e "/proc/${HOST_INIT[$to]}/root/proc/$pid" ] || host_run "$to" test -d "/proc/$pid" || {
		failure="move $n: no process $pid in host $to"
		return 1
	}
	down=$(done_field downtime_ms "$events")
	how=$(how_it_went "$events" "$down")
	printf '  %3d  %s to %s %7s %11s %12s %11s %15s  %s\n' "$n" "$from" "$to" "$(done_field rounds "$events")" \
		"$(mib "$(done_field bytes "$events")") MiB" "$down ms" \
		"$(awk -v t="$(done_field total_ms "$events")" 'BEGIN { printf "%.2f s", t / 1000 }')" "$(field longest_ms "$line") ms" "$how"
	[[ $how != over* ]] || over=$((over + 1))
	downtimes+=("$down")
	bytes=$(awk -v a="$bytes" -v b="$(done_field bytes "$events")" 'BEGIN { printf "%.0f", a + b }')
}

start_hosts
step "Starting redis-server in host A and filling it with $(thousands "$keys") keys of $value bytes"
start_redis
start_client
run_id=$(server_info A run_id)
[ "$link" = 0 ] || say "  the link has $link Mbit/s"
[ "$rtt" = 0 ] || say "  the way there and back takes $rtt ms for ferry"
say "  redis-server is process $pid and has $(mib "$(memory_of A)") MiB; $connections connections read and write as fast as $([ "$rate" = 0 ] && echo they can || echo "$rate requests/s allow")"
sleep 1
quiet=$(mark) || exit 1

step "Moving it $times times while the client goes on"
printf '  %3s  %-6s %7s %11s %12s %11s %15s\n' "" "" rounds sent downtime total "client paused"
failure= downtimes=() bytes=0 over=0
from=A to=B
for ((n = 1; n <= times; n++)); do
	one_move $n $from $to || break
	swap=$from from=$to to=$swap
done
[ "$n" -gt "$times" ] && sleep 0.5

step "Checking every key"
moved_id=$(server_info $from run_id)
kill -TERM "$client" 2>/dev/null
wait_until 120 grep -q '^checked' "$work/client" || failure=${failure:-the client did not finish its check: $(tail -n 1 "$work/client.err")}
total=$(grep '^load' "$work/client")
checked=$(grep '^checked' "$work/client")
client=
wait "$!" 2>/dev/null
errors=$(field errors "$checked") lost=$(field lost "$checked")
[ "${lost:-1}" = 0 ] && [ "${errors:-1}" = 0 ] || failure=${failure:-${lost:-?} keys lost, ${errors:-?} errors: $(head -n 1 "$work/client.err")}
[ -n "$run_id" ] && [ "$run_id" = "$moved_id" ] || failure=${failure:-this is another server than at the start}
[ -z "$tcp" ] || [ "$(field reconnects "$total")" = 0 ] || failure=${failure:-$(field reconnects "$total") connections of the client were lost}
[ "$(field keys "$checked")" = "$keys" ] || failure=${failure:-only $(field keys "$checked") of $keys keys were checked}

[ $over = 0 ] || failure=${failure:-$over of $times moves took longer than the budget}

say
if [ -n "$failure" ]; then
	step "FAILED: $failure"
	tail -n 3 "$work"/ferryd.? "$work/client.err" | sed 's/^/  /'
	exit 1
fi
sorted=($(printf '%s\n' "${downtimes[@]}" | sort -g))
step "redis-server moved $times times, and nobody lost anything."
say "  keys checked          $(thousands "$keys"), $lost lost"
say "  client                $(thousands "$(field requests "$total")") requests, $(thousands "$(field writes "$total")") of them writes; $(field reconnects "$total") reconnects, $errors other errors"
say "  sent                  $(mib "$bytes") MiB in $times moves"
say "  downtime              ${sorted[$((${#sorted[@]} / 2))]} ms in the middle, ${sorted[-1]} ms at most"
say "  longest client pause  $(field longest_ms "$total") ms ($(field longest_ms "$quiet") ms without a move)"
say "  server                process $pid, the same one as at the start (run_id ${run_id:0:8})"
