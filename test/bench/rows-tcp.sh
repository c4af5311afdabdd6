# SPDX-License-Identifier: Apache-2.0
# The row of run.sh about a TCP connection that moves. To be sourced by it.

# The hosts on a bridge in C, where the client is; an address that moves.
tcp_hosts() {
	local h n=1
	host_down
	host_up A 1000 && host_up B 20000 && host_up C 40000 && host_net C ip link add br0 type bridge && host_net C ip link set br0 up &&
		host_net C ip addr add 192.0.2.9/24 dev br0 || { note "cannot make the test hosts"; exit 1; }
	for h in A B; do
		host_net C ip link add "to$h" type veth peer name eth0 netns "${HOST_INIT[$h]}" && host_net C ip link set "to$h" master br0 up &&
			host_net $h ip addr add 192.0.2.$n/24 dev eth0 && host_net $h ip link set eth0 up || exit 1
		host_run $h "$bin/ferryd" --insecure -v4 --listen 192.0.2.$n </dev/null >"$work/ferryd.$h" 2>&1 &
		n=2
		for _ in $(seq 250); do
			host_net $h cat /proc/net/tcp /proc/net/tcp6 | grep -qi ":1D2F .* 0A " && break
			sleep 0.02
		done
	done
	host_net A ip addr add 192.0.2.10/24 dev eth0
}

# asker_says: the next line of the client, in $said
asker_says() {
	local before=$(wc -l <"$work/asked")
	host_run C sh -c 'kill -USR1 "$(cat "$0")"' "$work/asker.pid"
	for _ in $(seq 500); do
		[ "$(wc -l <"$work/asked")" -gt "$before" ] && break
		sleep 0.01
	done
	said=$(tail -n 1 "$work/asked")
}

# tcp_row one|many: there and back, 4 times as often as other rows are repeated
tcp_row() {
	local i from=A to=B address=192.0.2.2 felt=() above=() phases=
	clear
	tcp_hosts
	rm -f "$work/pid" "$work/asker.pid"
	host_run A setsid -f sh -c 'echo $$ >"$1" && shift && exec "$@" </dev/null >/dev/null 2>&1' start "$work/pid" "$programs/bench-asker" serve 192.0.2.10 7000
	until [ -s "$work/pid" ] && host_net A grep -q ":1B58 .* 0A " /proc/net/tcp; do sleep 0.01; done
	read -r pid <"$work/pid"
	: >"$work/asked"
	host_run C setsid -f sh -c 'echo $$ >"$1" && shift && exec "$@" </dev/null' start "$work/asker.pid" "$programs/bench-asker" ask 192.0.2.10 7000 "$1" >"$work/asked" 2>"$work/asker.err"
	until [ -s "$work/asker.pid" ]; do sleep 0.01; done
	sleep 0.3
	for i in $(seq $((repeats * 4))); do
		asker_says
		ferry $from "$work/events" migrate "$pid" --to $address --insecure --tcp-established --move-address ${more[@]+"${more[@]}"} || return
		sleep 0.6
		asker_says
		events "$work/events"
		felt+=("$(field longest_ms "$said")")
		above+=("$(calc %.2f "${felt[-1]} - ${downtimes[-1]}")")
		note "   felt ${felt[-1]} ms, downtime ${downtimes[-1]} ms; $(done_phases "$work/events")"
		case $from in A) from=B to=A address=192.0.2.1 ;; *) from=A to=B address=192.0.2.2 ;; esac
	done
	host_run C sh -c 'kill -TERM "$(cat "$0")"' "$work/asker.pid"
	for _ in $(seq 500); do
		grep -q 'wrong=\|bench-asker' "$work/asked" "$work/asker.err" && break
		sleep 0.01
	done
	grep -q 'wrong=0$' "$work/asked" || failed "the client did not get the right answers: $(tail -n 1 "$work/asked" "$work/asker.err" | tr '\n' ' ')"
	row "a request each ms on one TCP connection to a program that moves, $2: longest wait for an answer" "$(median "${felt[@]}") ms" \
		"$(printf '%s\n' "${felt[@]}" | sort -g | tr '\n' ' ')in ${#felt[@]} migrations; more than the downtime by ferry's own count: $(median "${above[@]}") ms, at most $(highest "${above[@]}") ms; that downtime $(median "${downtimes[@]}") ms, at most $(highest "${downtimes[@]}") ms"
	host_down
}

tcp() {
	tcp_row one "the next when the last was answered"
	tcp_row many "without waiting for answers"
}
