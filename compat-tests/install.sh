#!/usr/bin/env bash
# Installs what the tests need on a bare Debian machine, by package name. Quick when everything is there.
set -euo pipefail
cd "$(dirname "$0")"

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
need gcc gcc
need java default-jdk-headless
need javac default-jdk-headless
need mvn maven
need python3 python3
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need mount mount
need nft nftables
need setpriv util-linux
need nsenter util-linux
need ip iproute2
need openssl openssl
[ -e /usr/include/zookeeper/zookeeper.h ] || packages+=(libzookeeper-mt-dev)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  echo "installing: ${packages[*]}"
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if ! command -v cargo >/dev/null 2>&1; then
  echo "a Rust toolchain (1.93 or newer) is needed: install rustup" >&2
  exit 1
fi
if ! .venv/bin/python -c 'import kazoo, pytest' 2>/dev/null; then
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check kazoo pytest
fi
if [ ! -e java/target/lib/logback-classic-1.3.15.jar ]; then
  mvn --quiet --batch-mode -f java/pom.xml dependency:copy-dependencies -DoutputDirectory=target/lib
fi
