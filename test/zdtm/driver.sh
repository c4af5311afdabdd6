#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Plays a test driver that knows the command line of criu(8), under that name, one case per option:   driver.sh [CASE]...
# Each case looks at what the option does, not at what is said about it. Page servers, cgroups, terminals and link-remap have scripts of their own.
set -u
# Targets inherit nothing that the caller of this script has left open.
for f in /proc/$$/fd/*; do
	f=${f##*/}
	[ "$f" -le 2 ] || [ "$f" = 255 ] || eval "exec $f>&-"
done
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

setup() {
	mkdir -p "$dir/images" "$dir/bin"
	ln -sf "$ferry" "$dir/bin/criu"
	criu=$dir/bin/criu
	chmod 755 "$dir"
}

# shell SCRIPT [REDIRECTION...]: a shell with its own session as the target; $pid
shell() {
	local script=$1
	shift
	host_run A setsid -f sh -c 'echo $$ >"$1/pid.new" && mv "$1/pid.new" "$1/pid"; eval "$2"' target "$dir" "$script" </dev/null >"$dir/target.out" 2>&1
	within 10 test -s "$dir/pid" || fail "the target did not start"
	read -r pid <"$dir/pid"
	sleep 0.1
	tree=$(host_pids A)
}

# One that says what it gets, and ends with the code it is told.
listener='trap "exit 7" USR1; while :; do read -t 1 x </dev/null; sleep 0.05; done'

gone() { within 5 empty A || fail "something is left: $(host_pids A | tr '\n' ' ')"; }

state_of() { host_run A sh -c 'read -r line </proc/$0/stat && set -- ${line##*) } && echo $1' "$1" 2>/dev/null; }

in_state() { [ "$(state_of "$pid")" = "$1" ]; }

end_target() {
	host_run A kill -9 $(host_pids A) 2>/dev/null
	gone
}

case_names_and_forms() {
	setup
	start empty
	must_work "$criu" --version
	must_work "$criu" dump --tree="$pid" --images-dir="$dir/images" --log-file=a.log --verbosity=4 --leave-running
	[ -s "$dir/images/a.log" ] || fail "--log-file=NAME wrote none"
	must_work "$criu" -v4 -o b.log dump -t "$pid" -D "$dir/images" -R
	[ -s "$dir/images/b.log" ] || fail "options before the verb are lost"
	must_work "$criu" dump -t"$pid" -D"$dir/images" -oc.log -verbosity=0 -R
	[ -e "$dir/images/c.log" ] || fail "-oNAME wrote none"
	[ ! -s "$dir/images/c.log" ] || fail "-verbosity=0 wrote $(wc -l <"$dir/images/c.log") lines"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -vvv -o d.log -R
	[ "$(wc -l <"$dir/images/d.log")" -gt 1 ] || fail "-vvv wrote no information"
	finish A
}

case_log_files() {
	setup
	mkdir "$dir/work"
	start empty
	must_work "$criu" dump -t "$pid" -D "$dir/images" -W "$dir/work" -o dump.log -v4 -R
	[ ! -e "$dir/images/dump.log" ] && [ -s "$dir/work/dump.log" ] || fail "the log is not in the work directory"
	! grep -qvE '^\([0-9]+\.[0-9]{6}\) ' "$dir/work/dump.log" || fail "a line of the log is not (seconds.micros) text: $(grep -vE '^\([0-9]+\.[0-9]{6}\) ' "$dir/work/dump.log" | head -n 1)"
	! grep -q Error "$dir/work/dump.log" || fail "the log of a success has an error"
	must_fail 'images directory' "$criu" dump -t "$pid" -D "$dir/none" -W "$dir/work" -o fail.log -v4
	tail -n 5 "$dir/work/fail.log" | grep -qE '^\([0-9]+\.[0-9]{6}\) Error \([a-z_/]+\.c:[0-9]+\): ' || fail "the log does not end with Error (file:line): $(tail -n 1 "$dir/work/fail.log")"
	must_fail 'no-such-option' "$criu" dump -t "$pid" -D "$dir/images" -W "$dir/work" -o odd.log --no-such-option
	grep -q 'Error (' "$dir/work/odd.log" || fail "no log of a call that makes no sense"
	must_fail 'not-a-verb' "$criu" not-a-verb
	finish A
}

case_config_file() {
	setup
	start empty
	printf 'images-dir %s\nlog-file "conf.log" # comment\nverbosity=4\nleave-running\n' "$dir/images" >"$dir/conf"
	must_work "$criu" dump -t "$pid" --config "$dir/conf" --no-default-config
	alive A || fail "leave-running of the configuration file has no effect"
	[ -s "$dir/images/conf.log" ] || fail "log-file of the configuration file has no effect"
	printf 'images-dir %s\nodd-option\n' "$dir/images" >"$dir/conf"
	must_fail "$dir/conf, line 2: odd-option" "$criu" dump -t "$pid" --config "$dir/conf"
	finish A
}

case_exit_codes() {
	setup
	shell "$listener"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	gone
	host_run A "$criu" restore -D "$dir/images" -o restore.log -v4 --pidfile "$dir/runs.1" >"$dir/out" 2>&1 &
	within 20 test -s "$dir/runs.1" || fail "no process $pid after the restore"
	host_run A kill -USR1 "$pid"
	wait $!
	rc=$?
	[ $rc = 7 ] || fail "the exit code is $rc, not that of the root (7)"
	gone
	host_run A "$criu" restore -D "$dir/images" -o restore.log -v4 --pidfile "$dir/runs.2" >"$dir/out" 2>&1 &
	within 20 test -s "$dir/runs.2" || fail "no process $pid after the second restore"
	host_run A kill -KILL "$pid"
	wait $!
	rc=$?
	[ $rc = 137 ] || fail "the exit code is $rc, not 128 + 9"
	gone
}

case_detached_and_pidfile() {
	setup
	mkdir "$dir/work"
	shell "$listener"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log
	gone
	must_work "$criu" restore -d -D "$dir/images" -W "$dir/work" --pidfile root.pid -o restore.log -v4
	[ "$(cat "$dir/work/root.pid")" = "$pid" ] || fail "the pid file says $(cat "$dir/work/root.pid"), not $pid"
	alive A || fail "no process $pid after the restore"
	[ "$(host_run A ps -o ppid= -p "$pid" | tr -d ' ')" = 1 ] || fail "detached, but a child of $(host_run A ps -o ppid= -p "$pid")"
	end_target
}

# The caller becomes the parent: a shell that does not exec waits for it.
case_sibling() {
	setup
	shell "$listener"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log
	gone
	host_run A sh -c '"$1" restore -S -D "$2" --pidfile root.pid -o restore.log -v4 || exit 99
		set -- $(ps -o ppid= -p "$3"); echo "$1 $$" >"$0"; wait; :' "$dir/parents" "$criu" "$dir/images" "$pid" >"$dir/out" 2>&1 &
	within 10 test -s "$dir/parents" || fail "the restore failed: $(tail -n 1 "$dir/out")"
	read -r parent caller <"$dir/parents"
	[ "$parent" = "$caller" ] || fail "the root is a child of $parent, not of the caller $caller"
	end_target
}

case_exec_cmd() {
	setup
	shell "$listener"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log
	gone
	in_a "$criu" restore -D "$dir/images" -o restore.log --exec-cmd -- sh -c 'ps -o ppid= -p '"$pid"' | tr -d " "; echo $$; exit 5'
	[ $rc = 5 ] || fail "the code is $rc, not that of the command"
	[ "$(sed -n 2p "$dir/out")" = "$(sed -n 3p "$dir/out")" ] || fail "the command is not the parent of the root: $(tr '\n' ' ' <"$dir/out")"
	end_target
}

case_leave_running_and_stopped() {
	setup
	shell "$listener"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log --leave-running
	in_state T && fail "stopped by --leave-running"
	alive A || fail "--leave-running ended it"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log --leave-stopped
	in_state T || fail "not stopped by --leave-stopped, but $(state_of "$pid")"
	host_run A kill -CONT "$pid"
	within 5 host_run A sh -c '! grep -q "^State:.T" /proc/$0/status' "$pid" || fail "does not go on after SIGCONT"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log
	gone
	must_work "$criu" restore -d -s -D "$dir/images" -o restore.log
	in_state T || fail "not stopped by restore -s"
	end_target
}

case_previous_images() {
	setup
	mkdir "$dir/images/1" "$dir/images/2"
	start mem-writer
	must_work "$criu" pre-dump -t "$pid" -D "$dir/images/1" --track-mem --pre-dump-mode splice -o dump.log
	must_work "$criu" dump -t "$pid" -D "$dir/images/2" --track-mem --prev-images-dir ../1 --auto-dedup -o dump.log --display-stats
	gone
	must_work "$criu" restore -d -D "$dir/images/2" -o restore.log
	alive A || fail "no process $pid after the restore"
	finish A
}

case_status_fd_and_daemon() {
	setup
	start empty
	mkdir "$dir/ready"
	mkfifo "$dir/status"
	host_run A sh -c 'exec 9>"$0/status"; exec "$1" page-server -D "$0/images" --address 127.0.0.1 --port 5555 --status-fd 9 -o ps.log -v4' "$dir" "$criu" >"$dir/ps.out" 2>&1 &
	got=$(timeout 10 od -An -c <"$dir/status" | tr -d ' \n')
	[ "$got" = '\0' ] || fail "--status-fd got \"$got\", not one zero byte"
	mkdir "$dir/state"
	must_work "$criu" dump -t "$pid" -D "$dir/state" --page-server --address 127.0.0.1 --port 5555 -R -o dump.log
	wait $! || fail "the page server ended with $?: $(tail -n 1 "$dir/ps.out")"
	mkdir "$dir/second"
	in_a "$criu" page-server -D "$dir/second" -W "$dir/second" --address 127.0.0.1 --port 0 --daemon --pidfile ps.pid -o ps.log
	[ $rc = 0 ] || fail "page-server --daemon failed: $(tail -n 1 "$dir/out")"
	port=$(sed -n 's/^PORT: //p' "$dir/out")
	[ -n "$port" ] || fail "no port is printed"
	host_run A kill -0 "$(cat "$dir/second/ps.pid")" || fail "the pid file leads to no process"
	must_work "$criu" dump -t "$pid" -D "$dir/state" --page-server --address 127.0.0.1 --port "$port" -R -o dump.log
	within 5 test -s "$dir/second/pages.img" -o -s "$dir/second/pagemap.img" || fail "the server in the background wrote nothing"
	finish A
}

hook() {
	cat >"$dir/hook" <<-'EOF'
		#!/bin/sh
		echo "$CRTOOLS_SCRIPT_ACTION ${CRTOOLS_INIT_PID:--} $CRTOOLS_IMAGE_DIR" >>"$0.said"
		[ -e "$0.fails-$CRTOOLS_SCRIPT_ACTION" ] && exit 3
		exit 0
	EOF
	chmod 755 "$dir/hook"
	rm -f "$dir/hook.said" "$dir"/hook.fails-*
}

said() {
	local want=$1 have
	have=$(cut -d ' ' -f 1 "$dir/hook.said" | tr '\n' ' ')
	[ "$have" = "$want " ] || fail "the script was called for \"$have\", not \"$want\""
	while read -r action root images; do
		[ "$images" = "$(realpath "$dir/images")" ] || fail "CRTOOLS_IMAGE_DIR is $images"
		case $action in
		pre-restore) [ "$root" = - ] || fail "CRTOOLS_INIT_PID is $root at $action" ;;
		*) [ "$root" = "$pid" ] || fail "CRTOOLS_INIT_PID is $root at $action, not $pid" ;;
		esac
	done <"$dir/hook.said"
	rm "$dir/hook.said"
}

case_action_scripts() {
	setup
	hook
	shell "$listener"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log -R --action-script "$dir/hook"
	said "pre-dump network-lock post-dump network-unlock"
	: >"$dir/hook.fails-pre-dump"
	must_fail 'action script .* failed at pre-dump with code 3' "$criu" dump -t "$pid" -D "$dir/images" --action-script "$dir/hook"
	rm "$dir/hook.fails-pre-dump" "$dir/hook.said"
	: >"$dir/hook.fails-post-dump"
	must_fail 'action script .* failed at post-dump with code 3' "$criu" dump -t "$pid" -D "$dir/images" --action-script "$dir/hook"
	alive A && ! in_state T || fail "a post-dump that fails does not let the target run on"
	rm "$dir/hook.fails-post-dump"
	said "pre-dump network-lock post-dump network-unlock"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log --action-script "$dir/hook"
	said "pre-dump network-lock post-dump"
	gone
	for action in pre-restore post-restore pre-resume; do
		: >"$dir/hook.fails-$action"
		must_fail "action script .* failed at $action with code 3" "$criu" restore -d -D "$dir/images" --action-script "$dir/hook"
		empty A || fail "a $action that fails leaves something: $(host_pids A | tr '\n' ' ')"
		rm "$dir/hook.fails-$action" "$dir/hook.said"
	done
	must_work "$criu" restore -d -D "$dir/images" -o restore.log --action-script "$dir/hook"
	said "pre-restore post-restore pre-resume post-resume"
	end_target
}

# The writing end of its output is a pipe to somebody else: at the restore it is a pipe to us.
case_inherit_pipe() {
	setup
	mkfifo "$dir/go"
	host_run A setsid -f sh -c 'echo $$ >"$0/pid"; (exec sleep 1000) & kill -9 $!; while :; do read -t 1 x </dev/null; sleep 0.05; [ -e "$0/go.now" ] && { echo hello from $$; exit 0; }; done' "$dir" </dev/null 2>/dev/null 1> >(cat >"$dir/first") &
	within 10 test -s "$dir/pid" || fail "the target did not start"
	read -r pid <"$dir/pid"
	sleep 0.3
	link=$(host_run A readlink "/proc/$pid/fd/1")
	[[ $link == pipe:* ]] || fail "its output is $link"
	must_fail "pid $pid fd 1: .*pipe.*outside the tree.*--external pipe" "$criu" dump -t "$pid" -D "$dir/images" -o dump.log
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log -v4 --external "${link/:/}"
	gone
	must_fail "pid $pid fd 1: pipe\[[0-9]+\] was external when it was dumped: .*--inherit-fd fd\[N\]:pipe\[" "$criu" restore -d -D "$dir/images"
	must_fail "inherit-fd fd\[77\]:.*descriptor 77" "$criu" restore -d -D "$dir/images" --inherit-fd "fd[77]:$link"
	must_fail "inherit-fd takes fd\[N\]:KEY" "$criu" restore -d -D "$dir/images" --inherit-fd "$link"
	mkfifo "$dir/pipe"
	timeout 20 cat "$dir/pipe" >"$dir/second" &
	host_run A sh -c '"$1" restore -d -D "$0/images" -o restore.log -v4 --inherit-fd "fd[7]:$2" 7>"$0/pipe"' "$dir" "$criu" "$link" >"$dir/out" 2>&1 || fail "the restore failed: $(tail -n 1 "$dir/out")"
	: >"$dir/go.now"
	wait $!
	[ "$(cat "$dir/second")" = "hello from $pid" ] || fail "through the caller's pipe came \"$(cat "$dir/second")\""
	[ ! -s "$dir/first" ] || fail "something went to the old pipe"
}

# A file by its path, another one by the number of its mount and inode.
case_inherit_files() {
	setup
	shell 'exec 3>>"$1/log" 4>>"$1/other"; while [ ! -e "$1/go.now" ]; do read -t 1 x </dev/null; sleep 0.05; done; echo to the log >&3; echo to the other >&4'
	read -r mnt < <(host_run A sed -n 's/^mnt_id:[[:space:]]*//p' "/proc/$pid/fdinfo/4")
	key=$(printf 'file[%x:%x]' "$mnt" "$(stat -c %i "$dir/other")")
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log -v4 --external "$key"
	gone
	rm "$dir/log" "$dir/other"
	path=${dir#/}/log
	must_fail 'external when it was dumped' "$criu" restore -d -D "$dir/images" --inherit-fd "fd[1]:$path"
	host_run A sh -c '"$1" restore -d -D "$0/images" -o restore.log -v4 --inherit-fd "fd[7]:$2" --inherit-fd "fd[8]:$3" 7>"$0/new.log" 8>"$0/new.other"' "$dir" "$criu" "$path" "$key" >"$dir/out" 2>&1 || fail "the restore failed: $(tail -n 1 "$dir/out")"
	: >"$dir/go.now"
	gone
	[ "$(cat "$dir/new.log") $(cat "$dir/new.other")" = "to the log to the other" ] || fail "the caller's files have \"$(cat "$dir/new.log" "$dir/new.other")\""
	[ ! -e "$dir/log" ] && [ ! -e "$dir/other" ] || fail "the old names were made again"
}

# Both ends of a socket pair: ours stays here, the target's is external; the driver brings another one.
case_inherit_socket() {
	setup
	host_run A "$programs/helpers/socket-pair" "$dir/first" sh -c 'echo $$ >"$0/pid"; while [ ! -e "$0/go.now" ]; do read -t 1 x </dev/null; sleep 0.05; done; echo hello' "$dir" </dev/null >/dev/null 2>&1 &
	within 10 test -s "$dir/pid" || fail "the target did not start"
	read -r pid <"$dir/pid"
	sleep 0.2
	link=$(host_run A readlink "/proc/$pid/fd/1")
	[[ $link == socket:* ]] || fail "its output is $link"
	id=${link#socket:}
	must_fail "unix stream socket .* outside the tree.*--external unix" "$criu" dump -t "$pid" -D "$dir/images" -o dump.log -j
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log -v4 -j --external "unix$id:name"
	must_fail 'socket\[[0-9]+\] was external' "$criu" restore -d -j -D "$dir/images"
	host_run A "$programs/helpers/socket-pair" "$dir/second" sh -c '"$1" restore -d -j -D "$0/images" -o restore.log -v4 --inherit-fd "fd[1]:$2" 2>"$0/out"; : >"$0/go.now"' "$dir" "$criu" "$link" </dev/null
	within 10 grep -qs hello "$dir/second" || fail "nothing came through the caller's socket: $(cat "$dir/out" "$dir/second")"
	gone
}

# A datagram socket is connected again to the name that its peer outside of the tree has.
case_ext_unix_sk() {
	setup
	mkdir -p -m 777 "$dir/test.unix-external"
	host_run A "$programs/helpers/dgram-sink" "$dir/test.unix-external/sink" "$dir/sunk" </dev/null >"$dir/sink.out" 2>&1 &
	within 10 test -S "$dir/test.unix-external/sink" || fail "no sink: $(cat "$dir/sink.out")"
	start unix-external
	must_fail "pid $pid fd 3: its unix datagram socket .* of a process outside the tree; --ext-unix-sk" "$criu" dump -t "$pid" -D "$dir/images"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log --ext-unix-sk
	must_work "$criu" restore -d -D "$dir/images" -o restore.log -x
	: >"$test/go"
	within 20 test -e "$test/result" || fail "the target never finished"
	[ "$(cat "$test/result")" = pass ] || fail "$(cat "$test/result")"
	within 5 grep -q after "$dir/sunk" || fail "the sink has $(tr '\n' ' ' <"$dir/sunk")"
}

case_external_types() {
	setup
	start empty
	take_snapshot proc.before
	for type in 'mnt[/a]:b' 'mnt[]' 'net[1]:a' 'pid[1]:a' 'veth[a]:b' 'dev[8/1]:a'; do
		must_fail "external ${type//[\[\]]/.} is not supported: " "$criu" dump -t "$pid" -D "$dir/images" --external "$type"
	done
	must_fail 'its type is none of' "$criu" dump -t "$pid" -D "$dir/images" --external 'wire[7]'
	must_fail 'takes TYPE' "$criu" dump -t "$pid" -D "$dir/images" --external nothing
	untouched
	finish A
}

case_shell_job() {
	setup
	# In the session of this host's shell, not one of its own.
	host_run A sh -c 'sh -c "echo \$\$ >\"\$0/pid\"; '"trap 'exit 0' TERM"'; while :; do read -t 1 x </dev/null; sleep 0.05; done" "$0" & sleep 1000' "$dir" </dev/null >/dev/null 2>&1 &
	within 10 test -s "$dir/pid" || fail "the target did not start"
	read -r pid <"$dir/pid"
	must_fail "session" "$criu" dump -t "$pid" -D "$dir/images"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log --shell-job
	must_fail "session" "$criu" restore -d -D "$dir/images"
	must_work "$criu" restore -d -D "$dir/images" -o restore.log -j
	alive A || fail "no process $pid after the restore"
}

case_ghost_limit() {
	setup
	shell 'exec 3<>"$1/big"; head -c 2000000 /dev/zero >&3; rm "$1/big"; while :; do read -t 1 x </dev/null; sleep 0.05; done'
	must_fail 'ghost-limit' "$criu" dump -t "$pid" -D "$dir/images"
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log --ghost-limit 4M --ghost-fiemap
	gone
	must_work "$criu" restore -d -D "$dir/images" -o restore.log
	[ "$(host_run A stat -Lc %s "/proc/$pid/fd/3")" = 2000000 ] || fail "the deleted file has $(host_run A stat -Lc %s "/proc/$pid/fd/3") bytes"
	end_target
}

# What asks for what happens anyway, and what no program of this kind needs: a dump and a restore as without it.
case_accepted() {
	setup
	start empty
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log -v4 --tcp-established --skip-in-flight --file-locks -l --force-irmap --evasive-devices \
		--enable-fs all --enable-external-masters --enable-external-sharing --network-lock nftables --display-stats --cpu-cap=cpu --ghost-fiemap --timeout 20 \
		--unprivileged --manage-cgroups=ignore --tls-no-cn-verify
	gone
	must_work "$criu" restore -d -D "$dir/images" -o restore.log -v4 --tcp-established --mntns-compat-mode --manage-cgroups=none --auto-dedup --cpu-cap --enable-fs all
	alive A || fail "no process $pid after the restore"
	finish A
}

case_refused() {
	setup
	start empty
	take_snapshot proc.before
	for option in '--ext-mount-map auto'; do
		name=${option%% *}
		must_fail "^Error: ${name%%=*}.* not supported" "$criu" dump -t "$pid" -D "$dir/images" $option
	done
	untouched
	for option in '--lsm-profile selinux:x'; do
		must_fail "^Error: ${option%% *} is not supported: " "$criu" restore -D "$dir/images" $option
	done
	must_fail 'dedup' "$criu" dedup -D "$dir/images"
	finish A
}

# net_of PID: its network namespace
net_of() { host_run A readlink "/proc/$1/ns/net"; }

# A network that others have made, and an empty one that a script sets up.
case_namespaces() {
	setup
	start ${1:-tcp-listen}
	must_fail '^Error: --empty-ns pid: ' "$criu" dump -t "$pid" -D "$dir/images" --empty-ns pid
	must_work "$criu" dump -t "$pid" -D "$dir/images" -o dump.log --empty-ns net
	gone
	must_fail '^Error: --join-ns net: it has the form' "$criu" restore -d -D "$dir/images" --join-ns net
	must_fail '^Error: --join-ns pid:/proc/1/ns/pid: .*nsenter' "$criu" restore -d -D "$dir/images" --join-ns pid:/proc/1/ns/pid
	must_fail '^Error: --join-ns: open /no/such/thing: ' "$criu" restore -d -D "$dir/images" --join-ns net:/no/such/thing
	must_fail '^Error: --join-ns: /proc/1/ns/uts is no net namespace' "$criu" restore -d -D "$dir/images" --join-ns net:/proc/1/ns/uts
	host_run A unshare --net sh -c 'ip link set lo up; echo $$ >"$1"; exec sleep 1000' sh "$dir/other" </dev/null >/dev/null 2>&1 &
	within 10 test -s "$dir/other" || fail "no other network"
	read -r other <"$dir/other"
	must_work "$criu" restore -d -D "$dir/images" -o restore.log --join-ns "net:/proc/$other/ns/net"
	[ "$(net_of "$pid")" = "$(net_of "$other")" ] || fail "it is in $(net_of "$pid"), not in $(net_of "$other")"
	! [ "$(net_of "$pid")" = "$(net_of 1)" ] || fail "there is only one network"
	must_fail "network" "$criu" dump -t "$pid" -D "$dir/images" -o dump.log
	host_run A kill -9 "$pid"
	within 10 gone_now || fail "it does not end"
	printf '#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION >>%s/steps\n[ $CRTOOLS_SCRIPT_ACTION != setup-namespaces ] || nsenter -t $CRTOOLS_INIT_PID -n ip link set lo up\n' "$dir" >"$dir/script"
	chmod 755 "$dir/script"
	must_work "$criu" restore -d -D "$dir/images" -o restore.log --empty-ns net --action-script "$dir/script"
	[ "$(head -n 3 "$dir/steps" | tr '\n' ' ')" = "pre-restore setup-namespaces post-setup-namespaces " ] || fail "the steps were $(tr '\n' ' ' <"$dir/steps")"
	case $(net_of "$pid") in "$(net_of 1)" | "$(net_of "$other")" | "") fail "it is in $(net_of "$pid")" ;; esac
	host_run A kill -9 "$other"
	finish A
}
gone_now() { ! alive A; }

case_check_features() {
	setup
	in_a "$criu" check
	[ $rc = 0 ] || fail "check says that nothing works: $(tail -n 1 "$dir/out")"
	for f in mem_dirty_track mnt_id timerfd ns_pid sk_unix_file sockopt_buf_lock ipv6_freebind fdinfo_lock uffd memfd_hugetlb pidfd_getfd; do
		in_a "$criu" check --feature "$f"
		[ $rc = 0 ] || [ "$(grep -c "^Error: $f is not there: " "$dir/out")" = 1 ] || fail "check --feature $f says neither yes nor why not: $(cat "$dir/out")"
		echo "$f: $rc" >>"$dir/summary.features"
	done
	grep -q '^mem_dirty_track: 0' "$dir/summary.features" || fail "no dirty tracking"
	grep -q '^sk_unix_file: 0' "$dir/summary.features" || fail "no sk_unix_file"
	for f in userns timens autofs compat_cr nftables; do
		must_fail "$f is not there" "$criu" check --feature $f
	done
	must_fail 'not a feature' "$criu" check --feature no_such_thing
}

run_cases "names-and-forms log-files config-file exit-codes detached-and-pidfile sibling exec-cmd leave-running-and-stopped previous-images
	status-fd-and-daemon action-scripts inherit-pipe inherit-files inherit-socket ext-unix-sk external-types shell-job ghost-limit accepted refused namespaces check-features" "$@"
