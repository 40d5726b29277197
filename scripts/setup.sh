#!/usr/bin/env bash
# Installs the backend into .venv and Label Studio into .venv-label-studio, both in the project's folder.
# Can be run again at any time: it takes a second when nothing changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE # see `step`: the byte code of what is imported is to be kept

usage() {
  cat <<'HELP'
Usage: ./scripts/setup.sh [options]

  --dev               also what the tests and the checks need; PostgreSQL's server among it (apt-get as root, if it is
                      missing)
  --no-label-studio   leave out Label Studio (you have your own)
  --browser           make sure that a Chromium is there for the browser tests (apt-get as root, if it is missing)
  --torch-index URL   take torch from this index, e.g. PyTorch's index of CPU wheels on a machine without
                      an NVIDIA GPU: 0.2 GB instead of about 3 GB
  -h, --help          this text

PYTHON=/path/to/python3 chooses the interpreter (3.11 to 3.13).
HELP
}

say() { printf '[setup] %s\n' "$*"; }
die() {
  printf '[setup] %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '[setup] %s\n' "$2" >&2
  exit 1
}

dev=0 label_studio=1 browser=0 torch_index=${TORCH_INDEX_URL:-}
while [ $# -gt 0 ]; do
  case $1 in
    --dev) dev=1 ;;
    --no-label-studio) label_studio=0 ;;
    --browser) browser=1 ;;
    --torch-index)
      [ $# -ge 2 ] || die "--torch-index needs an address." "Give the address of PyTorch's index of CPU wheels, which its site names."
      torch_index=$2
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      die "Unknown option $1."
      ;;
  esac
  shift
done

# Two set-ups at once (a quickstart beside a test run) would break each other's environments.
exec 9<.
if command -v flock >/dev/null && ! flock -n 9; then
  say "another set-up runs in this folder; waiting for it"
  flock 9
fi

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      # In an activated environment of ours, the interpreter that it was made from.
      "$candidate" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
      return
    fi
    [ "$candidate" != "${PYTHON:-}" ] || break
  done
  die "No Python 3.11 to 3.13 was found${PYTHON:+ at $PYTHON}." \
    "Install one (apt-get install python3 python3-venv) or name it: PYTHON=/path/to/python3 ./scripts/setup.sh"
}
python=$(find_python)

# An environment is trusted only if its stamp holds the hash of what it was made from. The mark `unfinished` lies in
# it while it is changed: where a run was cut off, the next one starts that environment anew.
fingerprint() {
  {
    printf '%s\n' "$PWD" "$torch_index"
    "$python" -VV
    cat "$@"
  } | sha256sum | cut -d ' ' -f 1
}
is_current() { [ ! -e "$1/unfinished" ] && [ "$(cat "$1/$2" 2>/dev/null)" = "$3" ]; }

open_environment() {
  local folder=$1
  if [ -e "$folder" ] && { [ -e "$folder/unfinished" ] || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; }; then
    say "$folder was left half-made: starting it anew"
    rm -rf "$folder"
  fi
  if [ ! -e "$folder" ]; then
    mkdir -p "$folder"
    touch "$folder/unfinished"
    "$python" -m venv "$folder" >"$folder.log" 2>&1 || {
      cat "$folder.log" >&2
      die "Python could not make the environment $folder." "On Debian and Ubuntu: apt-get install python3-venv"
    }
  fi
  touch "$folder/unfinished"
}

# step FOLDER TEXT ARGUMENTS...: one `pip install`, with its seconds, and with its output only when it fails. Without
# byte code: Python writes that of the modules that it meets, and most of what torch and Django bring is never met
# (installing torch took 46 s of processor time with it, 20 s without).
step() {
  local folder=$1 text=$2 started=$SECONDS
  shift 2
  if ! "$folder/bin/python" -m pip install --disable-pip-version-check --no-compile --progress-bar off "$@" >"$folder.log" 2>&1; then
    tail -n 30 "$folder.log" >&2
    die "Installing $text failed; the lines above are the end of pip's output (all of it: $folder.log)." \
      "Check the network, a proxy (HTTPS_PROXY), and the disk ($(df -Ph . | awk 'NR==2 {print $4}') free, 8 GB are needed with CUDA); then run this again."
  fi
  say "$text: $((SECONDS - started)) s"
}

install_main() {
  local folder=.venv torch sam2
  torch=$(sed -n 's/^\(torch==[^ #]*\).*/\1/p' requirements.txt)
  sam2=$(sed -n 's/^\(sam2==[^ #]*\).*/\1/p' requirements.txt)
  open_environment $folder
  step $folder "pip, setuptools, wheel" --upgrade pip setuptools wheel
  step $folder "$torch" ${torch_index:+--extra-index-url "$torch_index"} "$torch"
  # Its build needs the torch that is installed, not one of its own; its dependencies would pull torchvision, which
  # is not used and which breaks transformers where it does not fit torch.
  SAM2_BUILD_CUDA=0 step $folder "$sam2" --no-build-isolation --no-deps "$sam2"
  grep -v -e '^torch==' -e '^sam2==' requirements.txt >$folder/requirements-rest.txt
  printf '%s\n' "$torch" >$folder/constraints.txt
  step $folder "the rest of requirements.txt" -r $folder/requirements-rest.txt -c $folder/constraints.txt
  step $folder "svac-backend" --no-build-isolation --no-deps --editable .
  local started=$SECONDS
  # All that a worker and the web process import, so that they find its byte code.
  $folder/bin/python -c 'import av, cv2, label_studio_sdk, svac_backend.learning.finetune, svac_backend.server.app, svac_backend.cli.app' ||
    die "The environment .venv was installed, but a package in it cannot be imported (see above)." \
      "Delete .venv and run this again; if it stays so, report it with the lines above."
  say "checking that it imports: $((SECONDS - started)) s"
  rm -f $folder/stamp-dev
  printf '%s\n' "$1" >$folder/stamp
  rm $folder/unfinished
}

install_dev() {
  open_environment .venv
  step .venv "requirements-dev.txt" -r requirements-dev.txt -c .venv/constraints.txt
  printf '%s\n' "$1" >.venv/stamp-dev
  rm .venv/unfinished
}

install_label_studio() {
  open_environment .venv-label-studio
  step .venv-label-studio "Label Studio" -r requirements-label-studio.txt
  [ -x .venv-label-studio/bin/label-studio ] || die "Label Studio was installed without its command." "Delete .venv-label-studio and run this again."
  printf '%s\n' "$1" >.venv-label-studio/stamp
  rm .venv-label-studio/unfinished
}

install_browser() {
  local found
  for found in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$found" ] && command -v "$found" >/dev/null; then
      say "browser: $(command -v "$found")"
      return
    fi
  done
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    say "browser: none found. The browser tests will fail. Install Chromium (on Debian: sudo apt-get install chromium fonts-dejavu-core fonts-noto-color-emoji) or set CHROMIUM to one."
    return
  fi
  local started=$SECONDS
  if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core fonts-noto-color-emoji; } >.venv-browser.log 2>&1; then
    say "browser, from apt: $((SECONDS - started)) s"
  else
    tail -n 20 .venv-browser.log >&2
    say "browser: apt-get could not install Chromium (see above). The browser tests will fail."
  fi
}

# The tests start a server of their own from it.
install_postgresql() {
  local found
  for found in /usr/lib/postgresql/*/bin/postgres "$(command -v postgres || true)"; do
    if [ -n "$found" ] && [ -x "$found" ]; then
      return
    fi
  done
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] &&
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql; } >.venv-postgresql.log 2>&1; then
    say "PostgreSQL, from apt"
  else
    say "PostgreSQL: not found. Its tests will fail (on Debian: sudo apt-get install postgresql)."
  fi
}

# Rich made videos draw things such as dogs and cars with this font; without it they have shapes only.
install_emoji() {
  local found
  for found in /usr/share/fonts /usr/local/share/fonts ~/.local/share/fonts ~/.fonts /Library/Fonts; do
    if [ -d "$found" ] && [ -n "$(find "$found" -name NotoColorEmoji.ttf -print -quit)" ]; then
      return
    fi
  done
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] &&
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends fonts-noto-color-emoji; } >.venv-emoji.log 2>&1; then
    say "font Noto Color Emoji, from apt"
  else
    say "font Noto Color Emoji: not found. Made videos will show shapes only (on Debian: sudo apt-get install fonts-noto-color-emoji)."
  fi
}

started=$SECONDS
[ $browser = 0 ] || install_browser
[ $dev = 0 ] || install_postgresql
install_emoji

label_studio_job=
if [ $label_studio = 1 ]; then
  stamp=$(fingerprint requirements-label-studio.txt)
  if is_current .venv-label-studio stamp "$stamp"; then
    say "Label Studio is up to date"
  else
    say "installing Label Studio beside the rest (takes about 3 minutes)"
    set -m # a process group of its own, so that stopping it stops its pip too
    install_label_studio "$stamp" &
    label_studio_job=$!
    set +m
    trap 'kill -- "-$label_studio_job" 2>/dev/null || true' EXIT
  fi
fi

stamp=$(fingerprint requirements.txt pyproject.toml)
if is_current .venv stamp "$stamp"; then
  say "the backend's environment is up to date"
else
  say "installing the backend with $("$python" -V)"
  install_main "$stamp"
fi
if [ $dev = 1 ]; then
  stamp=$(fingerprint requirements.txt pyproject.toml requirements-dev.txt)
  is_current .venv stamp-dev "$stamp" || install_dev "$stamp"
fi
if [ -n "$label_studio_job" ]; then
  wait "$label_studio_job" || die "Label Studio could not be installed (see above)."
  trap - EXIT
fi
say "all is installed ($((SECONDS - started)) s). Activate it with: source .venv/bin/activate"
