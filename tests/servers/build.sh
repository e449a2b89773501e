#!/usr/bin/env bash
# Builds a program that tests start, once, from the pinned modules beside this file.
#
#   tests/servers/build.sh NAME CACHE    consul, etcd or kratos → CACHE/NAME
set -euo pipefail
name=$1 cache=$2
cd "$(dirname "$0")/$name"
package=.
[[ $name != etcd ]] || package=go.etcd.io/etcd/server/v3
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$cache/$name.new" "$package"
mv "$cache/$name.new" "$cache/$name"
