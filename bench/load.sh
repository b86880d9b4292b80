#!/usr/bin/env bash
# load.sh URL tables                                              (re)make the tables and procedures
# load.sh URL wide ROWS [SEED=1] [FIRST=1]                        W1 into orders_wide
# load.sh URL taxi ROWS [SEED=1] [FIRST=1]                        W2 into taxi_trips
# load.sh URL mix CHANGES [SEED=1] [RATE=0] [WORKERS=1] [RUN=mix] W3 on orders_wide; RATE = changes a second, 0 = full speed
# The same arguments on the same tables make the same rows, updated_at apart. psql is that of SLUICE_PG_BIN.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
url=$1
shift
psql=${SLUICE_PG_BIN:+$SLUICE_PG_BIN/}psql
q() { "$psql" -X -q -v ON_ERROR_STOP=1 -d "$url" "$@"; }
case "${1:?tables, wide, taxi or mix}" in
  tables) q -f "$here/tables.sql" 2>/dev/null; q -f "$here/w3_mix.sql" ;;
  wide) q -v n="$2" -v seed="${3:-1}" -v first="${4:-1}" -f "$here/w1_wide.sql" ;;
  taxi) q -v n="$2" -v seed="${3:-1}" -v first="${4:-1}" -f "$here/w2_taxi.sql" ;;
  mix)
    changes=$2 seed=${3:-1} rate=${4:-0} workers=${5:-1} run=${6:-mix} pids=()
    before=$(q -At -F, -c 'SELECT count(*), max(id) FROM orders_wide')
    for ((i = 0; i < workers; i++)); do
      q -c "CALL w3('$run', $seed, $i, $workers, $((changes / workers)), $rate::float8 / $workers, $before)" & pids+=($!)
    done
    for p in "${pids[@]}"; do wait "$p"; done
    q -A -t -F ' ' -c "SELECT 'transactions='||sum(txns), 'inserts='||sum(ins+reins), 'updates='||sum(upd), 'deletes='||sum(del),
      'changes='||sum(ins+upd+del+reins), 'seconds='||round(extract(epoch FROM max(finished)-min(started))::numeric, 2) FROM w3_progress WHERE run_id = '$run'" ;;
  *) echo "load.sh: $1: tables, wide, taxi or mix" >&2; exit 2 ;;
esac
