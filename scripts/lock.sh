#!/bin/sh
# Writes requirements.lock (with hashes) and constraints.txt (without) from pyproject.toml.
#
# The versions that stand in requirements.lock are kept where they still fit; `scripts/lock.sh --upgrade` takes
# the newest ones, `--upgrade-package NAME` one of them. uv resolves for every supported Python at once. Its own
# uv.lock is not kept: it names the registry's hosts, which are the business of whoever installs.
set -eu
cd "$(dirname "$0")/.."

if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    [ -x build/lock/bin/uv ] || {
        "$(scripts/python.sh)" -m venv build/lock
        build/lock/bin/pip install --quiet uv
    }
    uv=build/lock/bin/uv
fi

"$uv" pip compile pyproject.toml --group dev --group docs --universal --generate-hashes --no-header --quiet \
    --output-file requirements.lock "$@"
sed -n 's/^\([a-zA-Z0-9][^ ]*==[^\\]*[^ \\]\) *\\*$/\1/p' requirements.lock >constraints.txt
echo "requirements.lock: $(wc -l <constraints.txt) packages"
