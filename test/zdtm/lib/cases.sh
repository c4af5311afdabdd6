# SPDX-License-Identifier: Apache-2.0
# What the scripts of many cases share. To be sourced by bash with $here set; a case is a function case_NAME that runs in a shell
# and directory of its own ($dir) and ends by fail, skip or normally.
top=$(cd "$here/../.." && pwd)
bin=${FERRY_BIN_DIR:-$top/build/bin}
programs=${FERRY_ZDTM_DIR:-$top/build/zdtm}
ferry=$bin/ferry
. "$here/hosts.sh"

fail() {
	echo "$*" >"$dir/why"
	exit 1
}

skip() {
	echo "$*" >"$dir/why"
	exit 77
}

note() { echo "+ $*" >>"$dir/trace"; }

# Wait until a command succeeds: within SECONDS CMD...
within() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.02
	done
}

# start NAME [CMD...]: a test program in host A, by CMD if given. Sets $pid, $tree and $test (its directory).
start() {
	local name=$1
	shift
	test=$dir/test.$name
	mkdir -p -m 777 "$test" && chmod 777 "$test" && chmod 755 "$dir"
	note "start $name"
	host_run A "$@" "$programs/$name" --dir "$test" </dev/null >"$dir/start.out" 2>&1 || fail "$name did not start"
	within 20 test -e "$test/ready" || fail "$name was never ready: $(cat "$test/result" 2>/dev/null)"
	read -r pid <"$test/pid"
	sleep 0.05
	tree=$(host_pids A)
}

# alive HOST: the root of the target is there, and not a zombie
alive() {
	host_run "$1" sh -c 'for f in /proc/$0/task/*/stat; do read -r line <"$f" && case "${line##*) }" in [ZX]*) ;; *) exit 0 ;; esac; done; exit 1' "$pid" 2>/dev/null
}

empty() { [ -z "$(host_pids "$1")" ]; }

# take_snapshot FILE [-r] [HOST]
take_snapshot() { host_run "${3:-A}" "$here/proc-snapshot" ${2:-} "$pid" >"$dir/$1" 2>&1; }

same_as_before() {
	take_snapshot "${2:-proc.now}" ${1:+"$1"} ${3:+"$3"}
	diff -u "$dir/proc.before$1" "$dir/${2:-proc.now}" >"$dir/proc.diff" && [ "${4:-}" = any -o "$(host_pids "${3:-A}")" = "$tree" ]
}

# The target is in host A as it was when "take_snapshot proc.before" was called, and nothing else is there.
untouched() {
	alive A || fail "the target is gone"
	within "${1:-5}" same_as_before "" || {
		host_run A ps -eo pid,ppid,stat,args >"$dir/ps.out"
		fail "the target is not as it was: $(grep -m 2 '^[-+][^-+]' "$dir/proc.diff" | cut -c 1-160 | tr '\n' ' ')$([ "$(host_pids A)" = "$tree" ] || echo "; other processes: see ps.out")"
	}
}

# finish HOST: the target goes on and passes, and leaves nothing behind
finish() {
	: >"$test/go"
	within 30 test -e "$test/result" || {
		host_run "$1" ps -eLo pid,tid,ppid,stat,wchan:20,args >"$dir/ps.out"
		fail "the target never finished"
	}
	[ "$(cat "$test/result")" = pass ] || fail "$(cat "$test/result")"
	[ "$1" != A ] || within 5 empty A || fail "something is left behind in the host: $(host_pids A | tr '\n' ' ')"
}

# in_a CMD...: with a time limit; output in $dir/out, exit code in $rc
in_a() {
	note "$*"
	host_run A timeout -k 2 90 "$@" >"$dir/out" 2>&1
	rc=$?
	note "exit code $rc: $(tail -n 1 "$dir/out" | cut -c 1-300)"
}

must_work() {
	in_a "$@"
	[ $rc = 0 ] || fail "$(basename "$1") $2 failed ($rc): $(tail -n 1 "$dir/out")"
}

# must_fail REGEX CMD...: an exit code that is not 0 and no signal, and one sentence that starts with Error and matches
must_fail() {
	local regex=$1
	shift
	in_a "$@"
	said_error "$regex" "$2"
}

said_error() {
	[ "$rc" != 0 ] || fail "$2 reported success"
	[ "$rc" != 124 ] && [ "$rc" != 137 ] || fail "$2: time limit"
	[ "$rc" -lt 128 ] || fail "$2 ended by signal $((rc - 128))"
	[ "$(grep -ac '^Error' "$dir/out")" = 1 ] || fail "$2 said not one sentence that starts with Error, but: $(tail -n 3 "$dir/out" | tr '\n' '|')"
	grep -a '^Error' "$dir/out" | grep -qEi -- "$1" || fail "$2: the error is not '$1' but: $(grep -a '^Error' "$dir/out")"
}

start_ferryd() {
	host_run B "$bin/ferryd" --insecure --listen 192.0.2.2 </dev/null >>"$dir/ferryd.out" 2>&1 &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen: $(tail -n 1 "$dir/ferryd.out")"
}

# Kills every process of ferryd in host B, as a crash would.
kill_ferryd() {
	host_run B sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = ferryd ] && kill -9 ${p#/proc/}; done; :' 2>/dev/null
}

run_case() {
	local start=$EPOCHREALTIME rc took f
	dir=$work/$1
	mkdir "$dir" || exit 1
	(
		trap host_down EXIT
		host_up A 1000 || fail "no test host"
		"case_${1//-/_}"
	) >"$dir/script.out" 2>&1
	rc=$?
	took=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
	case $rc in
	0) printf 'ok    %-30s %6d ms  %s\n' "$1" $took "$(cat "$dir/summary" 2>/dev/null)" ;;
	77) printf 'skip  %-30s %s\n' "$1" "$(cat "$dir/why")" ;;
	*)
		printf 'FAIL  %-30s %s\n' "$1" "$(cat "$dir/why" 2>/dev/null || tail -n 1 "$dir/script.out")"
		for f in "$dir"/{trace,script.out,out,ferryd.out,ps.out,proc.diff,*/log,*.log}; do
			[ -s "$f" ] && echo "      -- ${f#"$dir/"}" && tail -n 10 "$f" | cut -c 1-240 | sed 's/^/      | /'
		done
		echo "      -- kept in $dir"
		return 1
		;;
	esac
	rm -rf "$dir"
	return $rc
}

# run_cases "CASE..." [SELECTED...]: all of them, or those that are named
run_cases() {
	local all=$1 passed=0 failed=0 skipped=0 name
	shift
	[ $# = 0 ] || all=$*
	[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
	[ -x "$ferry" ] && [ -x "$bin/ferryd" ] || { echo "no $ferry: not built"; exit 1; }
	work=$(mktemp -d "${TMPDIR:-/tmp}/ferry-cases.XXXXXX")
	chmod 755 "$work"
	for name in $all; do
		run_case "$name"
		case $? in 0) passed=$((passed + 1)) ;; 77) skipped=$((skipped + 1)) ;; *) failed=$((failed + 1)) ;; esac
	done
	[ $failed -gt 0 ] || rm -rf "$work"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed = 0 ]
}
