#!/bin/sh
# Prints the path of a Python that Leeward runs on (3.11 or later, able to make a venv), the host's default first.
set -eu
for name in ${LEEWARD_PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    found=$(command -v "$name" 2>/dev/null) || continue
    if "$found" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$found"
        exit 0
    fi
done
echo "Leeward needs Python 3.11 or later with venv. On Debian and Ubuntu: apt-get install python3-venv" >&2
exit 1
