#!/usr/bin/env bash
# gotest.sh [go test arguments]   runs every test, shows what failed, ends with one line of numbers
. "$(dirname "$0")/lib.sh"
cd "$repo"
mkdir -p "$cache"
log=$cache/gotest.$$.log
export SLUICE_BINARIES=$cache/binaries.$$
trap 'rm -rf "$log" "$SLUICE_BINARIES"' EXIT

start=$(date +%s)
code=0
for tags in "" sluicetest; do # once for all tests that run the program
  ${GO:-go} build -ldflags "-s -w" -tags "$tags" -o "$SLUICE_BINARIES/tags-$tags/sluice" ./cmd/sluice
done
# Two packages at once: several start a database or a broker of their own.
${GO:-go} test -count=1 -timeout 25m -p 2 "$@" ./... 2>&1 | tee "$log" | grep --line-buffered -vE '\[no test files\]$' || code=$?
passed=$(grep -cE '^ok ' "$log" || true)
failed=$(grep -cE '^FAIL[[:space:]]+[^[:space:]]' "$log" || true)
echo "go test: $passed packages passed, $failed failed, $(($(date +%s) - start)) s"
exit "$([ "$failed" = 0 ] && [ "$passed" -gt 0 ] && [ "$code" = 0 ] && echo 0 || echo 1)"
