#!/usr/bin/env bash
# Builds a program that tests start, once, from the pinned modules beside this file.
#
#   tests/servers/build.sh NAME CACHE    consul, etcd, interop, kratos, kube-apiserver or zookeeper → CACHE/NAME
set -euo pipefail
name=$1 cache=$2
cd "$(dirname "$0")/$name"
if [[ $name == zookeeper ]]; then
    rm -rf "${cache:?}/$name" "$cache/$name.new"
    mvn -B -q dependency:copy-dependencies -DincludeScope=runtime \
        -DexcludeArtifactIds=netty-tcnative-boringssl-static,netty-tcnative-classes -DoutputDirectory="$cache/$name.new"
    mv "$cache/$name.new" "$cache/$name"
    exit
fi
package=.
flags='-s -w'
case $name in
    etcd) package=go.etcd.io/etcd/server/v3 ;;
    kube-apiserver)
        package=k8s.io/kubernetes/cmd/kube-apiserver
        version=$(sed -n 's|.*k8s.io/kubernetes v\([^ ]*\).*|\1|p' go.mod | tail -1)
        minor=${version#1.}
        base=k8s.io/component-base/version
        flags+=" -X $base.gitVersion=v$version -X $base.gitMajor=1 -X $base.gitMinor=${minor%%.*}"
        ;;
esac
# Without inlining and what debuggers read, it takes half as long to build.
CGO_ENABLED=0 GOGC=400 go build -trimpath -buildvcs=false -gcflags 'all=-l -dwarf=false' -ldflags "$flags" \
    -o "$cache/$name.new" "$package"
mv "$cache/$name.new" "$cache/$name"
