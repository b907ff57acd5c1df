#!/bin/sh
# Makes .venv from requirements.lock, and again when the lock or the Python changed.
#
# Every package is checked against the hashes in the lock, the build backend (hatchling) included, and nothing
# is resolved anew. Quick, and does nothing, when .venv is what the lock says. A changed pyproject.toml only
# installs the project itself again: its commands and version stand there.
set -eu
cd "$(dirname "$0")/.."

pip=".venv/bin/pip --quiet --disable-pip-version-check"
python=$(scripts/python.sh)
lock=$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; pwd; cat requirements.lock; } | sha256sum)
project=$(sha256sum <pyproject.toml)

if [ "$(cat .venv/made-from 2>/dev/null || true)" != "$lock" ]; then
    echo "making .venv with $("$python" -V) from requirements.lock"
    "$python" -m venv --clear .venv
    $pip install --require-hashes --only-binary :all: --requirement requirements.lock
    echo "$lock" >.venv/made-from
fi
if [ "$(cat .venv/installed-from 2>/dev/null || true)" != "$project" ]; then
    $pip install --no-deps --no-build-isolation --no-index --editable .
    echo "$project" >.venv/installed-from
fi
