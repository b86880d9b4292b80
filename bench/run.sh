#!/usr/bin/env bash
# run.sh   what a row costs on this machine, stage by stage and through the whole flow
#   ROWS=500000 rows of W1; TAXI=4*ROWS rows of W2; CHANGES=300000 changes of W3
#   RATE=5000 changes a second for SECONDS_LIVE=30, committed every 2 s
# The table is printed at the end and written to .cache/bench/table.md; every
# measurement with all its figures is appended to .cache/bench/results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${ROWS:-500000} changes=${CHANGES:-300000} rate=${RATE:-5000} live=${SECONDS_LIVE:-30}
taxi=${TAXI:-$((4 * rows))}
out=$PWD/.cache/bench
work=$out/work
lines=$work/lines.jsonl broker=
sluice=${SLUICE_BIN:-$PWD/bin/sluice}
postgres=$(deploy/dev/postgres.sh)
export SLUICE_PG_BIN=$postgres
rm -rf "$work"
mkdir -p "$work"
go build -o "$out/bin/" ./bench/stages ./bench/freshness
export SHOP_DB_URL
SHOP_DB_URL=$(deploy/dev/postgres.sh start "$work/postgres")
trap 'deploy/dev/postgres.sh stop "$work/postgres"' EXIT
pg=$(head -n 1 "$work/postgres/data/postmaster.pid")
sql() { "$postgres/psql" -X -q -At -v ON_ERROR_STOP=1 -d "$SHOP_DB_URL" -c "$1"; }

# configure NAME TABLE KEY [EVERY]: the flow of one table into one upserted table
configure() {
  mkdir -p "$work/$1"
  cat >"$work/$1/sluice.yaml" <<YAML
name: $1
dir: data
kafka: { embedded: true }
sources:
  db:
    postgres: { url: "\${env:SHOP_DB_URL}", tables: [public.$2], slot: bench_$1 }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/$1
      s3: { embedded: true }
      commit: { every: ${4:-10s}, bytes: 64MiB }
    streams:
      - { from: db.public.$2, table: bench.$2, mode: upsert, sort_by: [$3] }
YAML
}

# measure NAME CMD…: one line of JSON; what CMD prints goes to NAME.log
measure() {
  local name=$1
  shift
  python3 bench/measure.py --name "$name" --watch "pg=$pg" ${broker:+--watch "broker=$broker"} --out "$out/results.jsonl" --log "$work/$name.log" -- "$@" ||
    { tail -n 5 "$work/$name.log" >&2; return 1; }
}

# flow NAME TITLE COUNT UNIT CONFIG [FLAGS…]: one run until everything has arrived
flow() {
  local name=$1 title=$2 count=$3 unit=$4 dir=$5
  shift 5
  measure "$name" "$sluice" run -c "$work/$dir/sluice.yaml" --until-caught-up "$@" | python3 bench/table.py run "$lines" "$title" "$count" "$unit"
}

# stages TABLE ROWS: (a) and (b)
stages() {
  "$out/bin/stages" -table "public.$1" -rows "$2" -dir "$work/stages-$1" >"$work/stages-$1.json"
  cat "$work/stages-$1.json" >>"$out/results.jsonl"
  python3 bench/table.py stage "$lines" <"$work/stages-$1.json"
  forget bench_stages "stages-$1"
}

# forget SLOT DIR: what is measured gives its log and its disk back
forget() {
  sql "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$1' AND NOT active" >/dev/null
  sql "DROP PUBLICATION IF EXISTS $1" 2>/dev/null
  rm -rf "${work:?}/$2"
}

# floor NAME TITLE TABLE COUNT: what reading alone costs
floor() {
  measure "$1" bash -c 'exec "$0" -X -q -d "$1" -c "COPY $2 TO STDOUT (FORMAT binary)" >/dev/null' "$postgres/psql" "$SHOP_DB_URL" "$3" |
    python3 bench/table.py floor "$lines" "$2" "$4" rows
}

# serve CONFIG: the broker of a pipeline runs, and its source has nothing to do; a broker that starts reads its whole log first
serve() {
  "$sluice" run -c "$work/$1/sluice.yaml" --only db >"$work/$1-serve.log" 2>&1 &
  reader=$!
  for ((i = 0; i < 300; i++)); do
    if "$sluice" status -c "$work/$1/sluice.yaml" --json 2>/dev/null | grep -q '"state": *"streaming"'; then
      broker=$(sed -E 's/.*"pid":([0-9]+).*/\1/' "$work/$1/data/kafka.server.json")
      return
    fi
    sleep 0.2
  done
  echo "the source of $1 does not stream: see $work/$1-serve.log" >&2
  return 1
}

# load NAME TABLE KIND ROWS KEY MEMORY: everything that begins with a full table
load() {
  bench/load.sh "$SHOP_DB_URL" "$3" "$4"
  floor "$1-copy" "floor: binary COPY, ${1^^}" "$2" "$4"
  stages "$2" "$6"
  configure "${1}c" "$2" "$5"
  measure "$1-publish" "$sluice" run -c "$work/${1}c/sluice.yaml" --only db --until-caught-up >/dev/null
  serve "${1}c"
  flow "$1-topic" "c topic → table, ${1^^}" "$4" rows "${1}c" --only lake
  broker=
  kill "$reader" && wait "$reader" || true
  forget "bench_${1}c" "${1}c"
  configure "$1" "$2" "$5"
  flow "$1-load" "d full load → Kafka → table, ${1^^}" "$4" rows "$1"
}

bench/load.sh "$SHOP_DB_URL" tables
load w1 orders_wide wide "$rows" id 50000
load w2 taxi_trips taxi "$taxi" trip_id 200000
forget bench_w2 w2

recvlogical=
if [ -x "$postgres/pg_recvlogical" ]; then
  recvlogical=1
  sql "CREATE PUBLICATION bench_floor FOR TABLE orders_wide"
  "$postgres/pg_recvlogical" -d "$SHOP_DB_URL" --create-slot -S bench_floor -P pgoutput
fi
bench/load.sh "$SHOP_DB_URL" mix "$changes" >"$work/mix.txt"
made=$(sed -nE 's/.*changes=([0-9]+).*/\1/p' "$work/mix.txt")
if [ -n "$recvlogical" ]; then
  end=$(sql "SELECT pg_current_wal_flush_lsn()")
  measure w3-pgoutput "$postgres/pg_recvlogical" -d "$SHOP_DB_URL" --start -S bench_floor -o proto_version=1 -o publication_names=bench_floor \
    -f /dev/null --endpos "$end" --no-loop | python3 bench/table.py floor "$lines" "floor: pgoutput received, W3" "$made" changes
  "$postgres/pg_recvlogical" -d "$SHOP_DB_URL" --drop-slot -S bench_floor
fi
flow w3-upserts "e changes → upserted table, W3" "$made" changes w1

configure w1 orders_wide id 2s
measure w3-live "$out/bin/freshness" -sluice "$sluice" -c "$work/w1/sluice.yaml" -rate "$rate" -seconds "$live" -out "$work/fresh.json" |
  python3 bench/table.py fresh "$lines" "$work/fresh.json"

machine="$(nproc) cores, $(sed -nE '/^model name/{s/.*: //p;q}' /proc/cpuinfo), $(awk '/MemTotal/{printf "%.0f GB", $2 / 1e6}' /proc/meminfo), $(uname -sr)"
title="$(date -u +%Y-%m-%d), $(git describe --always --dirty 2>/dev/null || echo unknown); $machine; Postgres $(sql 'SHOW server_version'); W1 $rows rows, W2 $taxi rows, W3 $made changes; $SECONDS s in all"
echo
python3 bench/table.py print "$lines" "$title" | tee "$out/table.md"
