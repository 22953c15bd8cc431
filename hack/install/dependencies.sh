# shellcheck shell=bash
# etcd and MinIO for trials, and the credentials of the latter. Sourced.

readonly EXAMPLE_KEY=AKIAIOSFODNN7EXAMPLE
readonly EXAMPLE_SECRET=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY

# Brings etcd and MinIO.
#   $1: whether to generate credentials (true, false)
install_dependencies() {
  _choose_credentials "$1"
  apply "$STAGE/config/dependencies/quickstart.yaml"
  add_storage "$NAMESPACE"
  wait_for_deployment etcd app=etcd
  wait_for_deployment minio app=minio
}

# Brings the volumes with sample models, and waits until they are filled.
install_volumes() {
  # A Job cannot be changed, and that of another version has another image.
  kube delete job pvc-init --ignore-not-found >/dev/null
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
  _set_credentials "$key" "$secret"
  sed -i.bak -e 's/documented-example/generated/' "$STAGE/config/dependencies/quickstart.yaml"
}

# By a file: the arguments of a program are there for everybody on this machine to read.
_set_credentials() {
  printf 's|%s|%s|\n' "$EXAMPLE_KEY" "$1" "$EXAMPLE_SECRET" "$2" >"$STAGE/credentials.sed"
  sed -i.bak -f "$STAGE/credentials.sed" "$STAGE"/config/dependencies/*.yaml
}

_credential() { kube get secret minio-credentials -o "jsonpath={.data.$1}" | base64 -d; }

_random() { head -c 4096 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c "$1"; }

# Gives a user namespace the storage: the same credentials, MinIO by its full name.
copy_storage() {
  local key secret
  exists secret minio-credentials ||
    die "namespace $NAMESPACE has no Secret minio-credentials" "install there with --quickstart first"
  key=$(_credential access-key) secret=$(_credential secret-key)
  _set_credentials "$key" "$secret"
  sed -i.bak -e "s|http://minio:|http://minio.$NAMESPACE:|" "$STAGE/config/dependencies/minio-storage-secret.yaml"
  add_storage "$1"
}

# Adds the storage to the Secret of a namespace. The other entries are the user's: apply would remove those that he
# applied himself.
add_storage() {
  local file=$STAGE/config/dependencies/minio-storage-secret.yaml
  make_storage_secret "$1"
  kube patch secret storage-config -n "$1" --patch-file "$file" >/dev/null || die "Secret storage-config cannot be changed"
}

# Runtime pods mount the Secret, so it has to be there.
make_storage_secret() {
  exists secret storage-config -n "$1" || kube create secret generic storage-config -n "$1" | sed 's/^/  /'
}
