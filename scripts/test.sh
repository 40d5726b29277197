#!/usr/bin/env bash
# Sets everything up, then runs every check and every test. Results and screenshots are left in test-output/.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'HELP'
Usage: ./scripts/test.sh [--unit] [--slow] [--no-setup] [--coverage]

  --unit      the checks and the unit tests only: no Label Studio, no browser
  --slow      with --unit, also the slow tests: those that train, or run a whole model
  --no-setup  take the environments as they are
  --coverage  say how much of each room the unit tests and the slow ones run; the rule from Python 3.12 on
HELP
}

unit_only=0 slow=0 setup=1 coverage=0
for argument in "$@"; do
  case $argument in
    --unit) unit_only=1 ;;
    --slow) slow=1 ;;
    --no-setup) setup=0 ;;
    --coverage) coverage=1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      echo "[test] Unknown option $argument." >&2
      exit 2
      ;;
  esac
done

if [ $setup = 1 ]; then
  if [ $unit_only = 1 ]; then
    ./scripts/setup.sh --dev --no-label-studio || exit 1
  else
    ./scripts/setup.sh --dev --browser || exit 1
  fi
fi

mkdir -p test-output
rm -f test-output/*.xml
failed=()
# Where it is set, each of the hundreds of processes compiles all modules anew: 9 of 16 s to import the model.
unset PYTHONDONTWRITEBYTECODE
# Torch and OpenBLAS threads beyond the cores only slow each other down where several processes run.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1

# stage NAME COMMAND...: all stages run, so that one look shows everything that is broken.
stage() {
  local name=$1 started=$SECONDS
  shift
  echo "[test] $name: $*"
  if "$@"; then
    echo "[test] $name: passed in $((SECONDS - started)) s"
  else
    echo "[test] $name: FAILED after $((SECONDS - started)) s"
    failed+=("$name")
  fi
}

bin=.venv/bin
# The types take longest, on one core; the other checks run meanwhile.
$bin/mypy >test-output/types.log 2>&1 &
mypy=$!
types() {
  wait $mypy
  local status=$?
  cat test-output/types.log
  return $status
}
stage "lint" $bin/ruff check .
stage "format" $bin/ruff format --check .
stage "site" env NO_MKDOCS_2_WARNING=1 $bin/mkdocs build --quiet --strict
stage "types" types
# One process for each core, with one thread: four at most, each holds torch.
processes=$(nproc)
measured=()
# Python 3.12 counts lines at little cost. Before, the unit tests take 1.8 times the processor time (measured on 3.11).
if $bin/python -c "import sys; sys.exit(sys.version_info < (3, 12))"; then
  coverage=1
  export COVERAGE_CORE=sysmon
fi
[ $coverage = 0 ] || measured=(--cov=svac_backend --cov-report=term:skip-covered)
stage "unit tests" env OMP_NUM_THREADS=1 $bin/pytest -q -n $((processes < 4 ? processes : 4)) --dist worksteal \
  --ignore=tests/browser --ignore=tests/integration -m "not slow and not integration and not browser" \
  --durations=25 --junit-xml=test-output/unit.xml ${measured[@]+"${measured[@]}"}
# compute PREFIX...: the slow tests, which compute without a break.
compute() {
  local files
  files=$(grep -rl --include='test_*.py' 'mark\.slow' tests | sort)
  env OMP_NUM_THREADS=1 "$@" -m "slow and not integration and not browser" --durations=25 \
    --junit-xml=test-output/slow.xml ${measured[@]+"${measured[@]}" --cov-append} $files
}
if [ $unit_only = 1 ] && [ $slow = 1 ]; then
  stage "slow tests" compute $bin/pytest -q -n $((processes < 4 ? processes : 4)) --dist worksteal
fi
if [ $unit_only = 0 ]; then
  # The slow tests have the cores whenever the others wait: half of an annotator's minute in the browser, for instance.
  set -m # a process group of its own, so that stopping it stops its pytest too
  compute nice -n 5 $bin/pytest -q >test-output/slow.log 2>&1 &
  computing=$!
  set +m
  trap 'kill -- "-$computing" 2>/dev/null' EXIT
  computed() {
    wait $computing
    local status=$?
    cat test-output/slow.log
    return $status
  }
  # These wait for processes and pages more than they compute. Two at a time, each with a Label Studio of its own; the
  # tests of a file stay together, for they share what they started. The longest files begin, so that both end together,
  # and files without such tests are not even imported.
  files=$({
    printf 'tests/%s.py\n' integration/test_quickstart browser/test_pages test_cli browser/test_correcting_prompts \
      lab/drill/test_quick integration/test_doctor learning/test_train server/test_with_label_studio \
      browser/test_imported_video integration/test_package svac/test_bounded_memory svac/test_elsewhere \
      jobs/test_cluster_with_ray
    find tests/browser tests/integration -name 'test_*.py' | sort
    grep -rlE --include='test_*.py' 'mark\.(integration|browser)' tests | sort
  } | awk '!seen[$0]++')
  stage "integration and browser tests" env OMP_NUM_THREADS=1 $bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
    -m "integration or browser" --durations=25 --junit-xml=test-output/integration.xml $files
  stage "slow tests" computed
fi

[ ${#failed[@]} = 0 ] || echo "[test] failed: $(printf '%s; ' "${failed[@]}" | sed 's/; $//')"
# The last line sums up all of pytest's runs in pytest's own words.
$bin/python - <<'PYTHON'
import xml.etree.ElementTree as ElementTree
from pathlib import Path

totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
seconds = 0.0
for path in sorted(Path("test-output").glob("*.xml")):
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        seconds += float(suite.get("time", 0))
        for name in totals:
            totals[name] += int(suite.get(name, 0))
bad = totals["failures"] + totals["errors"] + totals["skipped"]
parts = [
    f"{count} {name}"
    for name, count in (
        ("failed", totals["failures"]),
        ("passed", totals["tests"] - bad),
        ("skipped", totals["skipped"]),
        ("errors", totals["errors"]),
    )
    if count
]
print(f" {', '.join(parts) or 'no tests ran'} in {seconds:.2f}s ".center(100, "="))
PYTHON
[ ${#failed[@]} = 0 ]
