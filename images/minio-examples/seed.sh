#!/bin/sh
# Has MinIO write a folder of files as a bucket in its own format: seed.sh FILES DATA BUCKET
set -eu
export MINIO_ROOT_USER=seed MINIO_ROOT_PASSWORD=seed-only-once HOME=/tmp
address=127.0.0.1:29000
minio server --quiet --address "$address" --console-address 127.0.0.1:29001 "$2" &
server=$!
tries=60
until mc --quiet alias set seed "http://$address" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" --api S3v4 >/dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    sleep 1
done
mc --quiet mb "seed/$3"
mc --quiet cp --recursive "$1/" "seed/$3/"
kill "$server"
wait "$server" || true
# The container is started with credentials of its own, and keeps no account of this one.
rm -rf "$2/.minio.sys/config" "$2/.minio.sys/tmp"
