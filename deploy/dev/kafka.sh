#!/usr/bin/env bash
# kafka.sh               prints the folder of Apache Kafka 4.4.0 (libs/), got from Maven Central when missing
# kafka.sh start DIR     starts one private broker with its data in DIR and prints HOST:PORT
# kafka.sh stop DIR      stops the broker of DIR
. "$(dirname "$0")/lib.sh"

home=${SLUICE_KAFKA_HOME:-$cache/kafka-4.4.0}

get() {
  [ -e "$home/.ready" ] && return
  need_java
  need mvn "apt-get install -y maven"
  say "getting Apache Kafka 4.4.0 (43 MB)"
  rm -rf "$home" "$home.part"
  mkdir -p "$home.part"
  mvn --batch-mode --quiet -Dstyle.color=never -f "$here/kafka-pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$home.part/libs" >&2
  [ -e "$home.part/libs/kafka_2.13-4.4.0.jar" ] || die "Maven copied no kafka_2.13-4.4.0.jar"
  cat >"$home.part/log4j2.properties" <<'END'
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
END
  touch "$home.part/.ready"
  mv "$home.part" "$home"
}

java_broker() { java -Xms128m -Xmx512m -XX:+UseSerialGC -Dlog4j2.configurationFile="$home/log4j2.properties" -cp "$home/libs/*" "$@"; }

# properties DIR PORT CONTROLLER-PORT: one node that is broker and controller.
properties() {
  cat <<END
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$3
log.dirs=$1/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
controlled.shutdown.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
END
}

start() {
  local dir=$1 port controller
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if [ -e "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; then cat "$dir/address"; return; fi
  if [ ! -e "$dir/server.properties" ]; then
    read -r port controller <<<"$(free_ports 2)"
    properties "$dir" "$port" "$controller" >"$dir/server.properties"
    echo "127.0.0.1:$port" >"$dir/address"
    java_broker kafka.tools.StorageTool format -t "$(python3 -c 'import base64, uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))')" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 || die "format $dir: see $dir/format.log"
  fi
  # A session of its own and no inherited pipe: the caller's end must not be the broker's.
  setsid nohup java -Xms128m -Xmx512m -XX:+UseSerialGC -Dlog4j2.configurationFile="$home/log4j2.properties" -cp "$home/libs/*" \
    kafka.Kafka "$dir/server.properties" >"$dir/broker.log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  python3 "$here/kafka-ready.py" "$(cat "$dir/address")" 60 || die "the broker does not answer: see $dir/broker.log"
  cat "$dir/address"
}

stop() {
  local pid i
  [ -e "$1/pid" ] || return 0
  pid=$(cat "$1/pid")
  kill "$pid" 2>/dev/null || true
  for ((i = 0; i < 100; i++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  kill -9 "$pid" 2>/dev/null || true
  rm -f "$1/pid"
}

case ${1:-get} in
  get) locked kafka get; echo "$home" ;;
  start) locked kafka get; start "${2:?kafka.sh start DIR}" ;;
  stop) stop "${2:?kafka.sh stop DIR}" ;;
  *) die "$1: get, start or stop" ;;
esac
