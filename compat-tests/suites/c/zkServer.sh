#!/usr/bin/env bash
# What the C client's tests call to start and stop their server, in the place of the script that comes with them: startClean throws
# the data away first, start keeps it; startCleanReadOnly starts one of two servers, whose other
# one never comes. Their port is fixed, so they run in a network namespace of their own.
set -euo pipefail
port=22181
state=$PWD/server
mkdir -p "$state"

stop() {
  [ -e "$state/pid" ] || return 0
  local pid
  pid=$(<"$state/pid")
  rm "$state/pid"
  kill "$pid" 2>/dev/null || return 0
  # It is no child of this shell: there is nothing to wait for but its end.
  for _ in $(seq 1500); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.02
  done
  kill -9 "$pid"
}

serves() {
  { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
  printf srvr >&3
  # A Java server that is still starting may neither answer nor close.
  timeout 1 grep -q Mode: <&3
}

start() {
  printf '%s\n' "dataDir=$state/data" tickTime=500 "clientPort=$port" "maxClientCnxns=${ZKMAXCNXNS:-100}" \
    '4lw.commands.whitelist=srvr' admin.enableServer=false ${ensemble:+"$ensemble"} >"$state/zoo.cfg"
  local flags=(-Dzookeeper.extendedTypesEnabled=true -Dznode.container.checkIntervalMs=100)
  # shellcheck disable=SC2206 # they are words
  flags+=(${EXTRA_JVM_ARGS:-} "$@")
  "$SERVE" "$state/zoo.cfg" "${flags[@]}" >>"$state/log" 2>&1 </dev/null &
  local pid=$!
  echo "$pid" >"$state/pid"
  for _ in $(seq 1500); do
    (serves) && return 0
    kill -0 "$pid" || return 1
    sleep 0.02
  done
  return 1
}

stop
case $1 in
  start) start ;;
  startClean)
    rm -rf "$state/data"
    start
    ;;
  startCleanReadOnly)
    rm -rf "$state/data"
    mkdir "$state/data"
    echo 1 >"$state/data/myid"
    ensemble=$'initLimit=10\nsyncLimit=5\nserver.1=localhost:22881:22882\nserver.2=localhost:32881:32882\nlocalSessionsEnabled=true'
    start -Dreadonlymode.enabled=true
    ;;
  stop) ;;
  *)
    echo "$1 needs an ensemble, or SASL" >&2
    exit 1
    ;;
esac
