#!/usr/bin/env bash
# up.sh [demo]   gets what make test (or only the demo) needs and prints it as lines for a shell: NAME=path
. "$(dirname "$0")/lib.sh"

# Side by side, for most of the time goes into waiting for registries.
mkdir -p "$cache"
"$here/postgres.sh" >"$cache/up.$$.postgres" & postgres=$!
"$here/judges.sh" >"$cache/up.$$.judges" & judges=$!
if [ "${1:-}" != demo ]; then "$here/kafka.sh" >"$cache/up.$$.kafka" & kafka=$!; "$here/kms.sh" >"$cache/up.$$.kms" & kms=$!; fi
trap 'rm -f "$cache"/up.$$.*' EXIT

wait $postgres
echo "SLUICE_PG_BIN=$(cat "$cache/up.$$.postgres")"
wait $judges
echo "SLUICE_JUDGES_PYTHON=$(cat "$cache/up.$$.judges")"
if [ "${1:-}" != demo ]; then
  wait "$kms"
  echo "SLUICE_KMS_SERVER=$(cat "$cache/up.$$.kms")"
  wait "$kafka"
  echo "SLUICE_KAFKA_HOME=$(cat "$cache/up.$$.kafka")"
fi
