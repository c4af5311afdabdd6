#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checks what `cmake --install` does:  install.sh BUILD_DIR
# Everything lies in its place, and the installed ferry, with the build tree out of sight, finds its parts. Needs root.
set -u
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
build=$(cd "$1" && pwd) || exit 2
good=0 bad=0

ok() {
	good=$((good + 1))
	echo "ok    $*"
}
fail() {
	bad=$((bad + 1))
	echo "FAIL  $*"
}

cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }

# In a mount namespace of its own: the files are installed over a copy of nothing, and the build tree is covered.
if [ "${2-}" != inside ]; then
	exec unshare --mount --propagation private -- "$0" "$build" inside
fi
# What this shell has inherited must not be inherited by what is moved: its other end would be left behind.
for fd in /proc/$$/fd/*; do
	fd=${fd##*/}
	case $fd in [012] | 255) ;; *) eval "exec $fd>&-" ;; esac
done
prefix=$(cached CMAKE_INSTALL_PREFIX)
stage=$(mktemp -d "${TMPDIR:-/tmp}/ferry-install.XXXXXX")
trap 'rm -rf "$stage"' EXIT
libdir=$(cached CMAKE_INSTALL_LIBDIR)
libdir=${libdir:-lib}

DESTDIR=$stage cmake --install "$build" >"$stage/log" 2>&1 && ok "cmake --install" || { fail "cmake --install: $(tail -n 1 "$stage/log")"; }
root=$stage$prefix

there() {
	local pattern
	for pattern; do
		if compgen -G "$root/$pattern" >/dev/null; then
			ok "$pattern"
		else
			fail "nothing is installed as $prefix/$pattern"
		fi
	done
}
there sbin/ferry sbin/ferryd "$libdir/ferry/parasite.bin" "$libdir/ferry/backends/*.so" include/ferry/dirty_backend.h \
	share/bash-completion/completions/ferry share/zsh/site-functions/_ferry \
	share/bash-completion/completions/ferryd share/zsh/site-functions/_ferryd \
	"lib/systemd/system/ferryd.service" "share/man/man1/ferry.1*" "share/man/man8/ferryd.8*" "share/man/man5/ferryd.conf.5*" "share/man/man5/ferry-images.5*"
# Each verb that works has a page, and each option that it shows is in it.
for verb in $("$root/sbin/ferry" --help | sed -n 's/^  \([a-z-]*\) .*/\1/p' | grep -vx dedup); do
	page=$root/share/man/man1/ferry-$verb.1
	if [ ! -s "$page" ]; then
		fail "no manual page of $verb"
		continue
	fi
	missing=
	for option in $("$root/sbin/ferry" "$verb" --help | grep -oE '^ {2,6}(-[a-zA-Z], )? *--[a-z-]+' | grep -oE -- '--[a-z-]+'); do
		grep -qF -- "${option//-/\\-}\\fR" "$page" || missing="$missing $option"
	done
	[ -z "$missing" ] && ok "the manual page of $verb" || fail "the manual page of $verb lacks$missing"
done
if command -v mandoc >/dev/null; then
	mandoc -T lint -W warning "$root"/share/man/man[158]/ferry* >"$stage/lint" 2>&1 && ok "mandoc finds nothing wrong" ||
		fail "mandoc: $(head -n 1 "$stage/lint")"
fi
for file in "$root/sbin"/* "$root/$libdir/ferry/backends"/*.so; do
	readelf -d "$file" 2>/dev/null | grep -qE 'R(UN)?PATH' && fail "${file#"$stage"} has a library path of the build"
	grep -qaF "$build/lib" "$file" && fail "${file#"$stage"} names the build tree"
done
[ -z "$(find "$root" -type f -path '*/demo/*' -o -type f -name 'bench-*' -o -type f -name 'unit-*')" ] && ok "no tests or demos" || fail "tests or demos are installed"

# Put it where it belongs, cover the build tree, use it.
mkdir -p "$prefix"
mount --bind "$root" "$prefix" && mount -t tmpfs tmpfs "$build" || { fail "cannot mount"; exit 1; }
cd /
"$prefix/sbin/ferry" check >"$stage/check" 2>&1 && ok "ferry check" || fail "ferry check: $(tail -n 1 "$stage/check")"
mkdir "$stage/images"
setsid sleep 1000 </dev/null >/dev/null 2>&1 &
target=$!
sleep 0.2
timeout 60 "$prefix/sbin/ferry" dump -t $target -D "$stage/images" --leave-running >"$stage/dump" 2>&1 &&
	ok "ferry dump with the installed parasite and backends" || fail "ferry dump: $(tail -n 1 "$stage/dump")"
kill -KILL $target

# ferryd looks at its configuration without being in the way of one that runs.
printf 'listen 127.0.0.1\nmax-peers 3\n' >"$stage/good.conf"
"$prefix/sbin/ferryd" --config "$stage/good.conf" --check-config >"$stage/out" 2>&1 && ok "ferryd --check-config" || fail "ferryd --check-config: $(cat "$stage/out")"
refuses() {
	printf '%s\n' "$2" >"$stage/bad.conf"
	if "$prefix/sbin/ferryd" --config "$stage/bad.conf" --check-config >"$stage/out" 2>&1; then
		fail "a configuration with '$2' is called good"
	else
		grep -q "$1" "$stage/out" && ok "a configuration with '$2' is refused" || fail "of '$2' it says: $(cat "$stage/out")"
	fi
}
refuses max-peers 'max-peers many'
refuses 'bad.conf' 'no-such-option 1'
refuses 192.0.2.77 'listen 192.0.2.77'
refuses 'no key' "listen 0.0.0.0
keys $stage/none"

# What bash offers for "WORD..." with the cursor behind the last one
offers() {
	bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ferry 2>/dev/null; echo " ${COMPREPLY[*]} "' \
		"$prefix/share/bash-completion/completions/ferry" "$@"
}
completes() {
	local wanted=$1 unwanted=$2
	shift 2
	local got=$(offers "$@")
	[[ $got == *" $wanted "* && $got != *" $unwanted "* ]] && ok "completion of '$*'" || fail "completion of '$*' offers$got"
}
completes migrate --to ferry ''
completes pre-dump migrate ferry pre
completes --to --images-dir ferry migrate --
completes --images-dir --to ferry -v restore --
completes $$ migrate ferry track $$
completes trust restore ferry keys t
got=$(bash -c '. "$0"; COMP_WORDS=(ferryd --max-p); COMP_CWORD=1; _ferryd; echo " ${COMPREPLY[*]} "' "$prefix/share/bash-completion/completions/ferryd")
[[ $got == *" --max-peers "* && $got != *" --listen "* ]] && ok "completion of 'ferryd --max-p'" || fail "completion of 'ferryd --max-p' offers$got"
if command -v zsh >/dev/null; then
	zsh -n "$prefix/share/zsh/site-functions/_ferry" && zsh -n "$prefix/share/zsh/site-functions/_ferryd" && ok "zsh reads its completion" || fail "zsh does not read its completion"
fi
echo "$good passed, $bad failed"
[ $bad = 0 ]
