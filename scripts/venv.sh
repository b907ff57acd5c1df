#!/bin/sh
# Makes .venv from requirements.lock, and again when the lock, the project file or the Python changed.
#
# Every package is checked against the hashes in the lock, the build backend (hatchling) included, and nothing
# is resolved anew. Quick, and does nothing, when .venv is what the lock says.
set -eu
cd "$(dirname "$0")/.."

python=$(scripts/python.sh)
wanted=$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; cat requirements.lock pyproject.toml; pwd; } |
    sha256sum | cut -d' ' -f1)
stamp=.venv/made-from
[ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ] || exit 0

echo "making .venv with $("$python" -V) from requirements.lock"
"$python" -m venv --clear .venv
pip=".venv/bin/pip --quiet --disable-pip-version-check"
$pip install --require-hashes --only-binary :all: --requirement requirements.lock
$pip install --no-deps --no-build-isolation --no-index --editable .
echo "$wanted" >"$stamp"
