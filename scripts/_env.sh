# Sourced by the scripts beside it. Needs bash and a Python >= 3.11 with pip: $PYTHON, else python3.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n── %s\n' "$*" >&2; }

# environment FOLDER EXTRA: a virtual environment with this project (editable) and one of its extras.
# Made anew for another Python or another place, refreshed when pyproject.toml changed, else left alone: no network.
environment() {
    local folder=$1 extra=$2 python=${PYTHON:-python3} base wanted
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "$python is not Python 3.11 or newer. Point PYTHON at one: PYTHON=python3.12 $0"
        exit 2
    fi
    base=$("$python" -c 'import sys; print(sys.version, sys.base_prefix)' && pwd)
    wanted=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')
    if [ "$(cat "$folder/.base" 2>/dev/null)" != "$base" ]; then
        say "$folder: a new environment with $("$python" --version)"
        "$python" -m venv --clear "$folder"
        printf '%s\n' "$base" >"$folder/.base"
    fi
    if [ "$(cat "$folder/.installed-$extra" 2>/dev/null)" != "$wanted" ]; then
        say "$folder: installing eqx-bridge[$extra] (minutes the first time)"
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
        printf '%s\n' "$wanted" >"$folder/.installed-$extra" # last: an interrupted install is done again
    fi
}
