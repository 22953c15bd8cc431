# shellcheck shell=bash
# etcd and MinIO for trials, and the credentials of the latter. Sourced.

readonly EXAMPLE_KEY=AKIAIOSFODNN7EXAMPLE
readonly EXAMPLE_SECRET=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY

# Brings etcd and MinIO.
#   $1: whether to generate credentials (true, false)
install_dependencies() {
  _choose_credentials "$1"
  apply "$STAGE/config/dependencies/quickstart.yaml"
  wait_for_deployment etcd app=etcd
  wait_for_deployment minio app=minio
}

# Brings the volumes with sample models, and waits until they are filled.
install_volumes() {
  # A Job cannot be changed; one that is done has nothing more to do.
  exists job pvc-init && [[ $(kube get job pvc-init -o 'jsonpath={.status.succeeded}') != 1 ]] &&
    kube delete job pvc-init >/dev/null
  apply "$STAGE/config/dependencies/fvt.yaml"
  TIMEOUT=180 wait_for_job pvc-init
}

# Puts generated credentials into the manifests: those of the cluster where there are such, else new ones on demand.
_choose_credentials() {
  local key secret
  if [[ $(kube get secret minio-credentials --ignore-not-found -o 'jsonpath={.metadata.labels.modelmesh-credentials}') == generated ]]; then
    key=$(_credential access-key) secret=$(_credential secret-key)
    say "  MinIO keeps its generated credentials"
  elif [[ $1 == true ]]; then
    key=$(_random 20) secret=$(_random 40)
    say "  MinIO gets generated credentials: they are in Secret minio-credentials"
  else
    warn "MinIO gets the example credentials of AWS's documentation, which everybody knows."
    warn "Do not put anything of value into it; --generate-credentials makes random ones."
    return
  fi
  sed -i.bak -e "s|$EXAMPLE_KEY|$key|" -e "s|$EXAMPLE_SECRET|$secret|" -e 's/documented-example/generated/' \
    "$STAGE"/config/dependencies/*.yaml
}

_credential() { kube get secret minio-credentials -o "jsonpath={.data.$1}" | base64 -d; }

_random() { head -c 4096 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c "$1"; }

# Gives a user namespace the storage Secret: the same credentials, MinIO by its full name.
copy_storage_secret() {
  local user_namespace=$1 key secret
  exists secret minio-credentials ||
    die "namespace $NAMESPACE has no Secret minio-credentials" "install there with --quickstart first"
  key=$(_credential access-key) secret=$(_credential secret-key)
  cat >"$STAGE/storage.yaml" <<EOF
apiVersion: v1
kind: Secret
metadata:
  name: storage-config
stringData:
  localMinIO: |
    {
      "type": "s3",
      "access_key_id": "$key",
      "secret_access_key": "$secret",
      "endpoint_url": "http://minio.$NAMESPACE:9000",
      "bucket": "modelmesh-example-models",
      "region": "us-south"
    }
EOF
  apply "$STAGE/storage.yaml" -n "$user_namespace"
}
