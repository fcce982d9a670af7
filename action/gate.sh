#!/usr/bin/env bash
# The second step of action.yml: parity, then speed if asked for and parity passed. Inputs come as INPUT_ variables.
# Exit code 0: passed; 1: failed; 2: the request was wrong.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$here/words.sh"

python="${INPUT_PYTHON:-python}"
out="${INPUT_OUT:-capsbench-gate}"
summary="${GITHUB_STEP_SUMMARY:-/dev/null}"
parity=refused speed=skipped code=0

output() {
  {
    if [ $code -eq 0 ]; then echo "ok=true"; else echo "ok=false"; fi
    echo "parity=$parity"
    echo "speed=$speed"
    echo "out=${out//[$'\r\n']/}"
  } >>"${GITHUB_OUTPUT:-/dev/null}"
}

# The outputs are written however the step ends.
ended() {
  code=$?
  output
}
trap ended EXIT

wrong() {
  refuse "$1"
  exit 2
}

# run NAME ARGUMENTS: runs a command of capsbench (-P: no folder or file of the caller's passes for it); its verdict is in NAME.json, NAME.xml and the summary. Sets `verdict`.
run() {
  local name="$1" status=0 told
  shift
  rm -f "$out/$name.json" "$out/$name.xml" "$out/$name.md"
  "$python" -P -m harness "$@" --out "$out/logs" --json --junit "$out/$name.xml" --markdown "$out/$name.md" \
    >"$out/$name.json" || status=$?
  if [ -f "$out/$name.md" ]; then
    cat "$out/$name.md" >>"$summary"
    cat "$out/$name.md" >>"$out/summary.md"
  fi
  if [ $status -eq 1 ] && [ ! -f "$out/$name.md" ]; then status=70; fi # it did not get to a verdict
  case $status in
    0) verdict=passed ;;
    1)
      verdict=failed
      echo "::error title=capsbench $name::$name failed: see the summary of the job, and $name.xml"
      ;;
    *)
      verdict=refused
      told="$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["error"])' "$out/$name.json" 2>/dev/null)" ||
        told="capsbench $name ended with exit code $status: see the log of this step"
      refuse "$told"
      ;;
  esac
  return $status
}

[ -n "${INPUT_IMPL:-}${INPUT_MODEL:-}" ] || wrong "give impl (package.module:Class or file.py:Class) or model (file.py:NAME)"
[ -z "${INPUT_IMPL:-}" ] || [ -z "${INPUT_MODEL:-}" ] || wrong "give impl or model, not both: use the action twice"
case "${INPUT_MEASURE:-false}" in
  true | false) ;;
  *) wrong "measure: found \"$INPUT_MEASURE\"; expected true or false" ;;
esac
timed=false
if [ -n "${INPUT_BASELINE:-}" ] || [ "${INPUT_MEASURE:-false}" = true ]; then timed=true; fi
if $timed && [ -n "${INPUT_MODEL:-}" ]; then wrong "baseline and measure need an adapter: give impl instead of model"; fi
if [ -n "${INPUT_BASELINE:-}" ] && [ ! -f "$INPUT_BASELINE" ]; then
  wrong "baseline: no file \"$INPUT_BASELINE\". Measure once with \`measure: true\`, and commit speed.json of its artifact."
fi
mkdir -p "$out" || wrong "out: cannot make the folder \"$out\""
out="$(cd "$out" && pwd)"
rm -f "$out/summary.md"

lines "${INPUT_IMPL:-}" --impl
impls=(${found[@]+"${found[@]}"})
arguments=(parity)
if [ -n "${INPUT_SUITE:-}" ]; then arguments+=("$INPUT_SUITE"); fi
arguments+=(${impls[@]+"${impls[@]}"})
if [ -n "${INPUT_MODEL:-}" ]; then arguments+=(--model "$INPUT_MODEL"); fi
if [ -n "${INPUT_MODEL_ARGS:-}" ]; then arguments+=(--model-args "$INPUT_MODEL_ARGS"); fi
if [ -n "${INPUT_LEVEL:-}" ]; then arguments+=(--level "$INPUT_LEVEL"); fi
if [ -n "${INPUT_PRECISION:-}" ]; then arguments+=(--precision "$INPUT_PRECISION"); fi
lines "${INPUT_SET:-}" -s
arguments+=(${found[@]+"${found[@]}"})
lines "${INPUT_ACCEPT:-}" --accept
arguments+=(${found[@]+"${found[@]}"})
status=0
run parity "${arguments[@]}" --time-limit "${INPUT_TIME_LIMIT:-300}" --no-mlflow || status=$?
parity=$verdict
if [ $status -ne 0 ] || ! $timed; then exit $status; fi

arguments=(speed)
suite="${INPUT_SPEED_SUITE:-${INPUT_SUITE:-}}"
if [ -n "$suite" ]; then arguments+=("$suite"); fi
arguments+=("${impls[@]}")
lines "${INPUT_SPEED_SET:-}" -s
arguments+=(${found[@]+"${found[@]}"})
words "${INPUT_SPEED_ARGUMENTS:-}"
arguments+=(${found[@]+"${found[@]}"})
if [ -n "${INPUT_BASELINE:-}" ]; then arguments+=(--baseline "$INPUT_BASELINE" --tolerance "${INPUT_TOLERANCE:-10}"); fi
speed=refused
run speed "${arguments[@]}" || status=$?
speed=$verdict
exit $status
