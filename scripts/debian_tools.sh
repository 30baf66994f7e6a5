#!/bin/sh
# Get what the tests need of the distribution: prometheus and promtool, unpacked but not installed, so that no service starts; and
# chromium with fonts, installed (root). What cannot be had is named in .tools/debian/missing, and its tests are skipped by name.
#
# Usage: debian_tools.sh TOOLS
set -u
tools=$1
mkdir -p "$tools/bin" "$tools/debian"
: > "$tools/debian/missing"

apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 "$@" >/dev/null 2>&1
}

# The lists of packages are read anew first: what older ones name may be gone.
get() {
	apt update
	apt "$@"
}

get_prometheus() {
	command -v apt-get >/dev/null || return 1
	(cd "$tools/debian" && get download prometheus && dpkg-deb --extract prometheus_*.deb . && rm -f prometheus_*.deb) || return 1
	cp "$tools/debian/usr/bin/promtool" "$tools/debian/usr/bin/prometheus" "$tools/bin"
}

get_chromium() {
	command -v apt-get >/dev/null && test "$(id -u)" = 0 || return 1
	get install --no-install-recommends --yes chromium fonts-inter fonts-jetbrains-mono fonts-noto-core
}

found() {
	command -v "$1" >/dev/null || test -x "$tools/bin/$1"
}

for program in prometheus chromium; do
	found $program || get_$program || { echo $program >> "$tools/debian/missing"; echo "$program cannot be had here: its tests are skipped" >&2; }
done
