#!/usr/bin/env bash
# Checks the GPU path on one GPU in at most eight minutes: that it runs, that masks are right, how fast, with how much memory.
#   ./scripts/gpu_check.sh [--minutes 8] [--out gpu-check.json] [--only NAMES] [--skip NAMES] [--again] [--dry-run]
#   ./scripts/gpu_check.sh --write-docs           what was found becomes the GPU section of docs/benchmarks.md
#   ./scripts/gpu_check.sh --pack [FOLDER] [--python 3.12]   wheels for a machine that has PyTorch and transformers only
# It needs no hub and no network: weights are random, in the published shapes. A machine with nothing but PyTorch and
# transformers takes the packages that are missing from the folder `wheels`, which --pack fills on a machine with an index.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheels=$root/wheels
python=${SVAC_PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)

# What the check imports beside PyTorch, transformers and what these bring; versions are those of requirements.txt.
needed='sam2 hydra-core omegaconf antlr4-python3-runtime iopath portalocker peft accelerate psutil av
  opencv-python-headless pillow pycocotools pydantic-settings pydantic pydantic-core annotated-types typing-inspection
  python-dotenv tensorboardX protobuf sentencepiece pytest pluggy iniconfig'

pack() {
  local folder=$wheels version='' constraints package
  while [ $# -gt 0 ]; do
    case $1 in
      --python)
        version=$2
        shift
        ;;
      *) folder=$1 ;;
    esac
    shift
  done
  mkdir -p "$folder"
  constraints=$(mktemp)
  trap 'rm -f "$constraints"' EXIT
  # The versions that are installed here are those that are tested.
  "$python" -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' >"$constraints"
  for package in $needed; do
    if [ -n "$version" ] && "$python" -m pip download --quiet --no-deps --only-binary :all: --python-version "$version" \
      --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --constraint "$constraints" --dest "$folder" \
      "$package" 2>/dev/null; then
      continue
    fi
    # Source packages (sam2, antlr4) hold Python only, and build to a wheel for every machine.
    SAM2_BUILD_CUDA=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation --constraint "$constraints" \
      --wheel-dir "$folder" "$package"
  done
  echo "[gpu-check] $(find "$folder" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f1), are in $folder."
}

if [ "${1:-}" = --pack ]; then
  shift
  pack "$@"
  exit
fi

export PYTHONPATH="$root:$root/scripts${PYTHONPATH:+:$PYTHONPATH}"
if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
  echo "[gpu-check] $python has no PyTorch or no transformers. Set SVAC_PYTHON to one that has, or run ./scripts/setup.sh." >&2
  exit 2
fi
if ! "$python" -c 'import sam2, peft, accelerate, av, cv2, pycocotools, pydantic_settings, tensorboardX, pytest' 2>/dev/null; then
  site=${TMPDIR:-/tmp}/svac-gpu-check-$(id -u)/site
  if [ ! -d "$wheels" ]; then
    echo "[gpu-check] Packages are missing. Run ./scripts/gpu_check.sh --pack on a machine with an index and copy wheels/." >&2
    exit 2
  fi
  if [ ! -d "$site" ]; then
    echo "[gpu-check] taking what is missing from $wheels"
    # PyTorch, transformers and numpy are not among them: these stay those of the machine.
    "$python" -m pip install --quiet --no-deps --no-index --target "$site" "$wheels"/*.whl
  fi
  export PYTHONPATH="$PYTHONPATH:$site"
fi
exec "$python" -m lab.gpu_check "$@"
