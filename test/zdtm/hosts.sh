# SPDX-License-Identifier: Apache-2.0
# Test hosts: a host is a network, pid, IPC and mount namespace with an init of its own. To be sourced by bash.
#
#   host_up A 1000         make host A; the first pids it hands out are above 1000
#   host_link A B          join A (192.0.2.1) and B (192.0.2.2) by a veth pair
#   host_run A CMD...      run a command there (in its namespaces, cwd /)
#   host_pids A            the pids in A, except its init and this query
#   host_down              end all hosts of this shell and everything that runs in them
#
# Give hosts that migrate to each other different first pids: a pid must be free where it arrives.
# Nothing outlives the shell: no names are made outside the namespaces, the init of a host dies with the shell
# (even by kill -9), and with it every process in it, its network and its mounts.
# /run is private to a host, so that each can have a daemon of its own, /dev/shm, as on hosts apart, and what ferry keeps in /var/lib; other
# files are shared by all.

declare -A HOST_INIT=() HOST_OUTER=()

host_up() {
	local name=$1 first=${2:-1000} outer init=
	# The init only reaps: a shell that waits for a sleeper reaps orphans as well.
	setpriv --pdeathsig KILL -- unshare --net --pid --ipc --mount --fork --kill-child --mount-proc -- sh -c '
		mount -t tmpfs -o mode=755 tmpfs /run &&
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm &&
		mkdir -p /var/lib/ferry && mount -t tmpfs -o mode=755 tmpfs /var/lib/ferry &&
		ip link set lo up &&
		echo "$1" >/proc/sys/kernel/ns_last_pid &&
		: >/run/host-is-up || exit 1
		while :; do sleep 100000 & wait $!; done' host-init "$first" </dev/null >/dev/null 2>&1 &
	outer=$!
	HOST_OUTER[$name]=$outer
	for _ in $(seq 500); do
		read -r init _ 2>/dev/null <"/proc/$outer/task/$outer/children" || :
		[ -n "$init" ] && [ -e "/proc/$init/root/run/host-is-up" ] && break
		init=
		kill -0 "$outer" 2>/dev/null || break
		sleep 0.01
	done
	[ -n "$init" ] || { echo "host $name did not come up" >&2; return 1; }
	HOST_INIT[$name]=$init
}

host_link() {
	host_net "$1" ip link add eth0 type veth peer name eth0 netns "${HOST_INIT[$2]}" &&
	host_net "$1" ip addr add 192.0.2.1/24 dev eth0 && host_net "$1" ip link set eth0 up &&
	host_net "$2" ip addr add 192.0.2.2/24 dev eth0 && host_net "$2" ip link set eth0 up
}

# Only the network of the host: for tools that set it up.
host_net() {
	local init=${HOST_INIT[$1]}
	shift
	nsenter -t "$init" -n -- "$@"
}

host_run() {
	local init=${HOST_INIT[$1]}
	shift
	nsenter -t "$init" -n -p -i -m -- "$@"
}

# Zombies count: they still hold their pid. The init's own sleeper does not.
host_pids() {
	host_run "$1" sh -c '
		for p in /proc/[0-9]*; do
			read -r line 2>/dev/null <"$p/stat" || continue
			rest=${line##*) }
			set -- $rest
			p=${p#/proc/}
			case $line in *"(sleep) "*) [ "$2" = 1 ] && [ "$(tr "\0" " " <"/proc/$p/cmdline")" = "sleep 100000 " ] && continue ;; esac
			[ "$p" = 1 ] || [ "$p" = $$ ] || echo "$p"
		done'
}

# nsenter stops itself when what it runs is stopped (SIGSTOP), and would stay after that was killed.
host_continue() {
	local job child
	for job in $(jobs -p); do
		for child in $(cat "/proc/$job/task/$job/children" 2>/dev/null); do
			kill -CONT "$child" 2>/dev/null
		done
	done
}

host_down() {
	local name
	for name in "${!HOST_OUTER[@]}"; do
		kill -KILL ${HOST_INIT[$name]:+"${HOST_INIT[$name]}"} "${HOST_OUTER[$name]}" 2>/dev/null
		wait "${HOST_OUTER[$name]}" 2>/dev/null
		unset "HOST_OUTER[$name]" "HOST_INIT[$name]"
	done
	host_continue
	return 0
}
