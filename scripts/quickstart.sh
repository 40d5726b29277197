#!/usr/bin/env bash
# From nothing to a running Label Studio whose demo project is pre-labelled and whose backend is connected.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unset PYTHONDONTWRITEBYTECODE # set-up leaves modules uncompiled; each process would compile them anew

usage() {
  cat <<'HELP'
Usage: ./scripts/quickstart.sh [options]

  --check                      verify what was made, print the figures, stop everything and exit
  --video FILE --prompt TEXT   your own video instead of the demo's; --prompt can be repeated for more objects
  --port N                     port of Label Studio (8080)
  --backend-port N             port of the backend (9090)
  --data DIR                   folder that keeps everything (.quickstart)
  --torch-index URL            see scripts/setup.sh
  -h, --help                   this text
HELP
}

setup=() options=(--data "$root/.quickstart")
while [ $# -gt 0 ]; do
  case $1 in
    --check) options+=("$1") ;;
    --video | --prompt | --port | --backend-port | --data | --torch-index)
      if [ $# -lt 2 ]; then
        echo "[quickstart] $1 needs a value." >&2
        exit 2
      fi
      if [ "$1" = --torch-index ]; then setup+=("$1" "$2"); else options+=("$1" "$2"); fi
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      echo "[quickstart] Unknown option $1." >&2
      exit 2
      ;;
  esac
  shift
done

"$root/scripts/setup.sh" ${setup[@]+"${setup[@]}"}
exec "$root/.venv/bin/python" -m svac_backend.quickstart "${options[@]}"
