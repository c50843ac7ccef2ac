#!/usr/bin/env bash
# zkServer.sh start-foreground ZOO_CFG: the server under test, with the flags that the tests want.
set -euo pipefail
read -ra flags <<<"${SERVER_JVMFLAGS:-}"
exec "$(dirname "${BASH_SOURCE[0]}")/../../serve" "$2" "${flags[@]}"
