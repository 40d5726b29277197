#!/usr/bin/env bash
# Runs a published model on a data set and compares its J&F with what its authors reported.
#   ./scripts/accept_published.sh MODEL --root DIR [--dataset ref-davis17|mevis] [--split NAME] [--expect J&F] [--margin POINTS]
#                                 [--limit VIDEOS] [--out DIR]
# --help says more.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH="$root/scripts${PYTHONPATH:+:$PYTHONPATH}" exec "${SVAC_PYTHON:-$root/.venv/bin/python}" -m lab.acceptance "$@"
