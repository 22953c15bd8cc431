#!/usr/bin/env bash
# Has a controller of cluster scope serve further namespaces.
set -euo pipefail

HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
REPOSITORY=$(dirname "$HERE")
# shellcheck source=hack/install/say.sh
source "$HERE/install/say.sh"
# shellcheck source=hack/install/manifests.sh
source "$HERE/install/manifests.sh"
# shellcheck source=hack/install/dependencies.sh
source "$HERE/install/dependencies.sh"

NAMESPACE=modelmesh-serving
CONFIG=$REPOSITORY/config
USER_NAMESPACES=
STORAGE=false
RUNTIMES=false

usage() {
  cat >&2 <<'EOF'
usage: setup_user_namespaces.sh -u "NAMESPACE ..." [options]

  -u, --user-namespaces "A B"     the namespaces; a missing one is skipped
  -c, --controller-namespace NS   where the controller is; modelmesh-serving
  -p, --install-config-path P     the manifests; config/ of the repository
  --create-storage-secret         give them the storage Secret for the MinIO of --quickstart
  --deploy-serving-runtimes       give them the shipped runtimes as their own
  --dev-mode                      accepted; the manifests are always those of this repository
  -h, --help                      this text
EOF
  exit 1
}

read_arguments() {
  while (($#)); do
    case $1 in
      -u | --user-namespaces) need_value "$@" && USER_NAMESPACES=$2 && shift ;;
      -c | --controller-namespace) need_value "$@" && NAMESPACE=$2 && shift ;;
      -p | --install-config-path) need_value "$@" && CONFIG=$2 && shift ;;
      --create-storage-secret) STORAGE=true ;;
      --deploy-serving-runtimes) RUNTIMES=true ;;
      --dev-mode) ;;
      -h | --help) usage ;;
      *) die "unknown option: $1" "setup_user_namespaces.sh --help lists all" ;;
    esac
    shift
  done
  [[ -n $USER_NAMESPACES ]] || die "--user-namespaces is missing"
}

enable_namespace() {
  local namespace=$1
  if ! exists namespace "$namespace"; then
    warn "namespace $namespace does not exist and is skipped: kubectl create namespace $namespace"
    return
  fi
  step "Enabling namespace $namespace"
  kubectl label --overwrite namespace "$namespace" modelmesh-enabled=true | sed 's/^/  /'
  apply_kustomization user-namespace -n "$namespace"
  [[ $STORAGE != true ]] || copy_storage "$namespace"
  [[ $RUNTIMES != true ]] || apply_kustomization namespace-runtimes -n "$namespace"
  if ! exists secret storage-config -n "$namespace"; then
    warn "namespace $namespace has no Secret storage-config: no runtime starts there before it has one"
  fi
}

main() {
  read_arguments "$@"
  require_kubectl
  require_cluster
  require_namespace "$NAMESPACE"
  stage_manifests "$CONFIG" "$NAMESPACE" "$REPOSITORY"
  local namespace
  for namespace in $USER_NAMESPACES; do
    enable_namespace "$namespace"
  done
}

main "$@"
