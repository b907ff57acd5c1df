#!/bin/sh
# The programs that tests, benchmarks and the demo use beside Python: installed when missing.
#
# As root on Debian or Ubuntu this installs what is missing through apt. Otherwise it prints the one line to
# run and fails: no test is skipped because a tool is not there. Quick, and does nothing, when all is there.
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # need PACKAGE PROGRAM...: PACKAGE is needed unless every PROGRAM is there
    package=$1
    shift
    for program in "$@"; do
        command -v "$program" >/dev/null 2>&1 || { missing="$missing $package"; return 0; }
    done
}

PATH=$PATH:/usr/sbin:/sbin
need qemu-utils qemu-img qemu-io qemu-nbd
need libnbd-bin nbdinfo nbdcopy
need nbdkit nbdkit
need fio fio
need xfsprogs mkfs.xfs xfs_repair
need e2fsprogs mke2fs e2fsck debugfs
need rsync rsync
need util-linux losetup flock
need mount mount
need systemd systemd-analyze
/usr/bin/python3 -c 'import nbd' >/dev/null 2>&1 || missing="$missing python3-libnbd"
scripts/python.sh >/dev/null 2>&1 || missing="$missing python3-venv"

[ -n "$missing" ] || exit 0

# Ubuntu 22.04's own Python is 3.10; it has 3.11 beside it.
case $missing in *python3-venv*)
    if command -v python3 >/dev/null 2>&1 && python3 -c 'import sys; sys.exit(sys.version_info >= (3, 11))'; then
        missing="$missing python3.11 python3.11-venv"
    fi ;;
esac

line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Leeward's tests need system tools that are not here. Run, as root:" >&2
    echo "    $line" >&2
    echo "(on a system without apt: the packages that hold the same programs)" >&2
    exit 1
fi

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086  # one word a package
if ! { apt-get update -qq && $line; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
