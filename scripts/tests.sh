#!/bin/sh
# scripts/tests.sh FOLDER... [-- PYTEST OPTIONS]: runs the tests in these folders.
#
# A folder that holds no test yet is named and left out; that at least one test ran is left to pytest, which
# fails when it collects none.
set -eu
cd "$(dirname "$0")/.."

folders=""
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    if [ -n "$(find "$1" -name 'test_*.py' -print -quit 2>/dev/null)" ]; then
        folders="$folders $1"
    else
        echo "$1: holds no tests yet"
    fi
    shift
done
[ $# -eq 0 ] || shift
[ -n "$folders" ] || exit 0
# shellcheck disable=SC2086  # one word a folder
exec .venv/bin/python -m pytest -q $folders "$@"
