#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Real programs on terminals:   terminal.sh [CASE]...
# A tmux with a shell, a job in its background and vim in its foreground; a shell under script(1). All are used before and after.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

own_terminals() {
	host_run "$1" sh -c 'mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx' || skip "no pseudo-terminals of its own"
}

# Run without the descriptors that the caller of this script has left open.
clean=(bash -c 'for f in /proc/$$/fd/*; do f=${f##*/}; [ "$f" -gt 2 ] && [ "$f" != 255 ] && eval "exec $f>&-"; done; exec "$@"' clean)

# tmux HOST ARG...
tmux() {
	local host=$1
	shift
	host_run "$host" env -i HOME="$dir" PATH="$PATH" TERM=xterm LANG=C TMUX_TMPDIR="$dir" SHELL=/bin/bash "${clean[@]}" tmux -L ferry -f /dev/null "$@" </dev/null
}

shows() { tmux "$1" capture-pane -p -t x 2>/dev/null | grep -qE -- "$2"; }

# within 10 s the screen of HOST has a line that matches
screen() {
	within 10 shows "$1" "$2" || {
		tmux "$1" capture-pane -p -t x >"$dir/screen.out" 2>&1
		fail "the screen does not show '$2' but: $(grep -v '^$' "$dir/screen.out" | tail -n 3 | tr '\n' '|')"
	}
}

keys() {
	local host=$1
	shift
	tmux "$host" send-keys -t x "$@" || fail "no tmux server answers"
}

start_tmux() {
	command -v tmux >/dev/null && command -v vim >/dev/null || skip "needs tmux and vim"
	own_terminals A
	chmod 755 "$dir"
	tmux A new-session -d -s x -x 80 -y 24 "bash --norc --noprofile" || fail "tmux does not start"
	pid=$(tmux A display-message -p '#{pid}')
	keys A "cd $dir; PS1='ready> '; echo be''gun" Enter
	screen A '^begun'
	keys A 'sleep 1000 &' Enter 'jobs' Enter
	screen A '\[1\].*Running.*sleep 1000'
	keys A 'vim -u NONE -N -n text' Enter
	screen A '^~'
	keys A 'ihello'
	screen A '^hello'
	tree=$(host_pids A)
}

use_tmux() {
	screen "$1" '^hello'
	keys "$1" ' world' Escape ':wq' Enter
	within 10 grep -qs '^hello world$' "$dir/text" || fail "vim did not write its file: $(cat "$dir/text" 2>&1)"
	screen "$1" 'ready>$'
	keys "$1" 'clear; jobs' Enter
	screen "$1" '\[1\].*Running.*sleep 1000'
	keys "$1" 'fg' Enter
	sleep 0.3
	keys "$1" 'C-c'
	keys "$1" 'clear; jobs; echo co''lumns $COLUMNS; stty size; echo fin''ished' Enter
	screen "$1" '^finished'
	screen "$1" '^columns 80'
	screen "$1" '^23 80|^24 80'
	shows "$1" 'Running' && fail "^C did not end the job"
	tmux "$1" kill-server
	within 10 empty "$1" || fail "left behind: $(host_pids "$1" | tr '\n' ' ')"
}

case_tmux_dump() {
	start_tmux
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	within 5 empty A || fail "something is left after the dump"
	must_work "$ferry" restore -D "$dir/images" -o restore.log -v4 -d
	use_tmux A
}

case_tmux_stays() {
	start_tmux
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4 --leave-running
	use_tmux A
}

# Three times, there and back.
case_tmux_migrate() {
	start_tmux
	mkdir "$dir/images"
	host_up B 20000 && host_link A B || fail "no second host"
	own_terminals B
	start_ferryd
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure -o "$dir/migrate.log" -v4
	within 5 empty A || fail "something is left at the source"
	screen B '^hello'
	keys B ' moved'
	screen B '^hello moved'
	keys B 'BSpace' 'BSpace' 'BSpace' 'BSpace' 'BSpace' 'BSpace'
	screen B '^hello$'
	keys B ' world' Escape ':wq' Enter
	within 10 grep -qs '^hello world$' "$dir/text" || fail "vim did not write its file: $(cat "$dir/text" 2>&1)"
	tmux B kill-server
}

# A shell that prints all the time, and is read all the time, is frozen in the middle of it: no line is lost or doubled.
case_script_busy() {
	command -v script >/dev/null || skip "needs script"
	own_terminals A
	host_run A setsid "${clean[@]}" script -qfec 'i=0; until [ -e '"$dir/enough"' ]; do echo "line $i"; i=$((i + 1)); done; echo done' "$dir/typescript" </dev/null >"$dir/out.script" 2>&1 &
	within 10 test -s "$dir/typescript" || fail "script does not start"
	pid=$(host_pids A | head -n 1)
	mkdir "$dir/images.1" "$dir/images.2"
	must_work "$ferry" dump -t "$pid" -D "$dir/images.1" -o dump.log -v4 --leave-running
	sleep 0.3
	must_work "$ferry" dump -t "$pid" -D "$dir/images.2" -o dump.log -v4
	within 5 empty A || fail "something is left after the dump"
	must_work "$ferry" restore -D "$dir/images.2" -o restore.log -v4 -d
	sleep 0.3
	: >"$dir/enough"
	within 20 grep -q '^done' "$dir/typescript" || fail "it does not end"
	within 10 empty A
	tr -d '\r' <"$dir/typescript" | awk '/^line / { if ($2 != n++) { print "line " $2 " where " n - 1 " was expected"; exit 1 } } END { if (n < 100) { print n " lines only"; exit 1 } }' >"$dir/check.out" ||
		fail "$(cat "$dir/check.out")"
}

# type TEXT: a line into the terminal that script(1) keeps
type() { printf '%s\n' "$*" >&"$keyboard"; }

seen() { tr -d '\r' <"$dir/typescript" | grep -qE -- "$1"; }

# A program that belongs to an interactive shell on another terminal: --shell-job.
case_shell_job() {
	command -v script >/dev/null || skip "needs script"
	own_terminals A
	mkfifo "$dir/keyboard"
	exec {keyboard}<>"$dir/keyboard"
	host_run A env -i HOME="$dir" PATH="$PATH" TERM=dumb setsid "${clean[@]}" script -qfc 'bash --norc --noprofile -i' "$dir/typescript" <"$dir/keyboard" >"$dir/out.script" 2>&1 &
	type "PS1='ready> '; cd $dir; echo be''gun"
	within 10 seen '^begun' || fail "no shell"
	cat >"$dir/job" <<-'END'
		stty -echo eof ^X
		echo pid $$
		while read -r line; do echo "got $line"; done
		echo end of input
		exit 7
	END
	type "bash ./job"
	within 10 seen '^pid [0-9]+' || fail "no job"
	pid=$(tr -d '\r' <"$dir/typescript" | sed -n 's/^pid //p' | head -n 1)
	type "one"
	within 10 seen '^got one' || fail "the job does not read"
	mkdir "$dir/images"
	must_fail "pid $pid fd [0-9]+: the other side of its terminal /dev/pts/[0-9]+ is outside the tree|leader of its session" "$ferry" dump -t "$pid" -D "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -j -o dump.log -v4
	within 10 seen 'Killed' || fail "the shell does not see its job go"
	must_fail 'terminal of its caller|leader' "$ferry" restore -D "$dir/images" -d
	type "stty sane; $ferry restore -D images -j -o restore.log -v4 --pidfile $dir/runs; echo code \$?"
	within 20 test -s "$dir/runs" || fail "it is not restored: $(tail -n 1 "$dir/images/restore.log")"
	type "two"
	within 10 seen '^got two' || fail "the restored job does not read: $(tail -n 3 "$dir/typescript" | tr '\r\n' ' |')"
	printf '\x18' >&"$keyboard"
	within 10 seen '^end of input' || fail "the end-of-file character is not that of the program"
	within 10 seen '^code 7' || fail "restore does not end with the code of the program"
	type "stty sane; exit"
	within 10 empty A || fail "left behind: $(host_pids A | tr '\n' ' ')"
}

run_cases "shell_job tmux_dump tmux_stays tmux_migrate script_busy" "$@"
