#!/usr/bin/env bash
# The first step of action.yml: installs capsbench, then what the caller asks for. Inputs come as INPUT_ variables.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$here/words.sh"

python="${INPUT_PYTHON:-python}"
if ! told="$("$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) and sys.version)' 2>&1)"; then
  refuse "python: \"$python\" is no Python 3.11 or newer: ${told:-not found}. Use actions/setup-python before."
  exit 2
fi
case "${INPUT_CAPSBENCH:-}" in
  none) ;;
  "") "$python" -m pip install --quiet "$(dirname "$here")${INPUT_EXTRAS:+[$INPUT_EXTRAS]}" ;;
  *)
    words "$INPUT_CAPSBENCH"
    "$python" -m pip install --quiet "${found[@]}"
    ;;
esac
words "${INPUT_INSTALL:-}"
if [ ${#found[@]} -gt 0 ]; then "$python" -m pip install "${found[@]}"; fi
