# For both scripts: an input of several lines as arguments. Nothing in an input is ever evaluated.

# lines TEXT OPTION: sets `found` to OPTION LINE for each line that is not empty.
lines() {
  found=()
  local line
  while IFS= read -r line || [ -n "$line" ]; do
    line="${line%$'\r'}"
    line="${line#"${line%%[![:space:]]*}"}"
    line="${line%"${line##*[![:space:]]}"}"
    if [ -n "$line" ]; then found+=("$2" "$line"); fi
  done <<<"$1"
}

# words TEXT: sets `found` to its words.
words() {
  found=()
  IFS=$' \t\r\n' read -r -d '' -a found <<<"$1" || true
}

# refuse MESSAGE: says in the log and the job's summary what is wrong, and ends the step.
refuse() {
  local text="${1//'%'/%25}"
  text="${text//$'\r'/%0D}"
  echo "::error title=capsbench::${text//$'\n'/%0A}"
  printf '## capsbench\n\n❌ **The request was wrong.**\n\n~~~~text\n%s\n~~~~\n\n' "$1" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
}
