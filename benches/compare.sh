#!/usr/bin/env bash
# Zabra beside Java's server 3.9.5, in one run: the same load, one server at a time, as ratios.
#   benches/compare.sh            the grid of reads and writes, memory, restarts (about 7 minutes)
#   SECONDS_EACH=5 …              longer points
# Java runs with Netty, a heap of 1 to 4 GiB, log level ERROR, warmed by 30 s of load.
set -euo pipefail
cd "$(dirname "$0")/.."
compat-tests/install.sh
cargo build --release --locked
seconds=${SECONDS_EACH:-2}
work=$(mktemp -d)
results=target/compare.jsonl
: >"$results"
server_pid=
stop() {
  [ -n "$server_pid" ] || return 0
  kill "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}
trap 'stop; rm -rf "$work"' EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

configure() { # kind
  port=$(free_port)
  mkdir -p "$work/$1"
  cat >"$work/$1/zoo.cfg" <<EOF
dataDir=$work/$1/data
clientPort=$port
tickTime=2000
maxClientCnxns=0
admin.enableServer=false
EOF
  echo '<configuration><root level="ERROR"/></configuration>' >"$work/$1/logback.xml"
}

start() { # kind; leaves the milliseconds until it serves in `took`
  local begun
  begun=$(date +%s%N)
  if [ "$1" = java ]; then
    java -Xms1g -Xmx4g -Dlogback.configurationFile="$work/java/logback.xml" \
      -Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory \
      -cp 'compat-tests/java/target/lib/*' org.apache.zookeeper.server.quorum.QuorumPeerMain \
      "$work/java/zoo.cfg" >"$work/java/log" 2>&1 &
  else
    target/release/zabra serve "$work/zabra/zoo.cfg" >"$work/zabra/log" 2>&1 &
  fi
  server_pid=$!
  took=$(python3 - "$port" "$begun" <<'EOF'
import socket, sys, time
begun = int(sys.argv[2])
while time.time_ns() - begun < 120e9:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
            connection.sendall(b"srvr")
            if b"Mode" in connection.recv(4096):
                print(round((time.time_ns() - begun) / 1e6))
                break
    except OSError:
        time.sleep(0.001)
else:
    sys.exit("the server does not serve")
EOF
  )
}

bench() { # kind, arguments
  local kind=$1
  shift
  target/release/zabra bench --server "127.0.0.1:$port" --server-pid "$server_pid" --json "$@" |
    sed "s/^{/{\"server\":\"$kind\",/" | tee -a "$results" >/dev/null
}

note() { echo "{\"server\":\"$1\",\"what\":\"$2\",\"value\":$3}" >>"$results"; }

for kind in java zabra; do
  configure "$kind"
  start "$kind"
  note "$kind" "empty start to serving, ms" "$took"
  echo "$kind: warming up" >&2
  bench warmup --op mix:50/50 --connections 64 --in-flight 16 --duration-s "$([ "$kind" = java ] && echo 30 || echo 2)" --warmup-s 0
  for op in get set; do
    for connections in 1 8 64 256; do
      for in_flight in 1 16 64; do
        echo "$kind: $op $connections x $in_flight" >&2
        bench "$kind" --op "$op" --connections "$connections" --in-flight "$in_flight" --duration-s "$seconds" --warmup-s 0.5
      done
    done
  done
  stop
done
for kind in java zabra; do
  rm -rf "${work:?}/$kind"
  configure "$kind"
  start "$kind"
  echo "$kind: 1,000,000 znodes" >&2
  bench "$kind" --op load --nodes 1000000
  note "$kind" "memory with 1,000,000 znodes, MB" "$(awk '/VmRSS/ {print int($2 * 1024 / 1000000)}' "/proc/$server_pid/status")"
  stop
  start "$kind"
  note "$kind" "restart with 1,000,000 znodes, ms" "$took"
  stop
done

python3 - "$results" <<'EOF'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
points = {}
for row in rows:
    if "what" in row:
        points.setdefault(row["what"], {})[row["server"]] = row["value"]
    elif row["server"] != "warmup" and row["op"] != "load":
        points.setdefault((row["op"], row["connections"], row["in_flight"]), {})[row["server"]] = row
line = "{:<6} {:>5} x {:<3} {:>10} {:>10} {:>7}   {:>9} {:>9}   {:>9} {:>9}"
print("                  operations/s                      p99.9 us              server CPU us/op")
print(line.format("op", "conns", "in", "java", "zabra", "ratio", "java", "zabra", "java", "zabra"))
for key, both in points.items():
    if isinstance(key, tuple):
        java, zabra = both["java"], both["zabra"]
        print(line.format(*key, round(java["per_s"]), round(zabra["per_s"]), f'{zabra["per_s"] / java["per_s"]:.1f}',
                          round(java["p999_us"]), round(zabra["p999_us"]),
                          f'{java["server_cpu_us_per_op"]:.1f}', f'{zabra["server_cpu_us_per_op"]:.1f}'))
for key, both in points.items():
    if isinstance(key, str):
        print(f'{key}: java {both["java"]}, zabra {both["zabra"]}, ratio {both["java"] / max(both["zabra"], 1):.1f}')
EOF
