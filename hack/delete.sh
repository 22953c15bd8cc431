#!/usr/bin/env bash
# Removes what install.sh brought. What users made stays, as long as its definitions do.
set -euo pipefail

HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=hack/install/say.sh
source "$HERE/install/say.sh"
# shellcheck source=hack/install/waits.sh
source "$HERE/install/waits.sh"

readonly OURS=app.kubernetes.io/managed-by=modelmesh-controller
readonly TRIAL=app.kubernetes.io/part-of=modelmesh-quickstart
readonly POLICIES=validatingadmissionpolicies,validatingadmissionpolicybindings
readonly KINDS=deployments,horizontalpodautoscalers,services,configmaps,poddisruptionbudgets,networkpolicies

NAMESPACE=
USER_NAMESPACES=

usage() {
  cat >&2 <<'EOF'
usage: delete.sh [options]

  -n, --namespace NS            where the controller is; by default the namespace of the current context
  -u, --user-namespaces "A B"   namespaces that lose their label, the example storage and the shipped runtimes, too
  -p, --local-config-path P     accepted; what is there is found by its labels
  -h, --help                    this text

The namespaces stay, and so do the Secret of an etcd of yours, ConfigMap model-serving-config and storages of yours.
Where no other installation and no KServe is in the cluster, the custom resource definitions go, and with them all
InferenceServices, Predictors and ServingRuntimes.
EOF
  exit 2
}

read_arguments() {
  while (($#)); do
    case $1 in
      -n | --namespace) need_value "$@" && NAMESPACE=$2 && shift ;;
      -u | --user-namespaces) need_value "$@" && USER_NAMESPACES=$2 && shift ;;
      -p | --local-config-path | --install-config-path) need_value "$@" && shift ;;
      -h | --help) usage ;;
      *) die "unknown option: $1" "delete.sh --help lists all" ;;
    esac
    shift
  done
}

current_namespace() {
  local name
  name=$(kubectl config view --minify -o 'jsonpath={..namespace}' 2>/dev/null) || true
  printf '%s' "${name:-default}"
}

# Deletes objects, saying which.
remove() { kube delete --ignore-not-found "$@" 2>&1 | sed -e '/^No resources found/d' -e '/^Warning: deleting cluster-scoped/d' -e 's/^/  /'; }

serves_cluster() {
  [[ $(kube get clusterrolebinding modelmesh-controller-rolebinding --ignore-not-found -o 'jsonpath={.subjects[0].namespace}') == "$NAMESPACE" ]]
}

# The namespaces in which the controller has made things, one a line.
served_namespaces() {
  tr ' ' '\n' <<<"$NAMESPACE $USER_NAMESPACES"
  if serves_cluster; then
    kubectl get namespaces -l modelmesh-enabled=true -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}'
  fi
}

# What else in the cluster needs the definitions; nothing where nothing does.
other_user_of_definitions() {
  kubectl get deployments -A -l control-plane=modelmesh-controller \
    -o 'jsonpath={range .items[*]}{.metadata.namespace}{"\n"}{end}' | grep -vx "$NAMESPACE" | head -n 1 |
    sed 's/^/the controller in namespace /'
  kubectl get deployments -A --field-selector metadata.name=kserve-controller-manager -o name | sed 's/.*/KServe/'
}

remove_controller() {
  step "Removing the controller from namespace $NAMESPACE"
  remove deployment modelmesh-controller
  wait_for_pods_to_go control-plane=modelmesh-controller
}

# What is in a served namespace; without its controller nobody makes it again.
remove_runtimes() {
  local namespace=$1 kinds=$KINDS
  exists namespace "$namespace" || return 0
  step "Removing runtimes from namespace $namespace"
  if exists crd servingruntimes.serving.kserve.io; then
    remove servingruntimes -n "$namespace" -l "$OURS"
  fi
  ! exists crd servicemonitors.monitoring.coreos.com || kinds+=,servicemonitors
  remove "$kinds" -n "$namespace" -l "$OURS"
  remove secrets -n "$namespace" -l "$OURS" --field-selector metadata.name!=storage-config
  NAMESPACE=$namespace wait_for_pods_to_go modelmesh-service
}

wait_for_pods_to_go() { _wait_for "pods ($1)" "$1" _pods_are_gone "$1"; }

_pods_are_gone() {
  local left
  left=$(kube get pods -l "$1" -o name | wc -l)
  printf '%s left' "$left"
  ((left == 0))
}

# The example storage goes; the Secret stays where it holds others.
remove_storage() {
  local namespace=$1 keys
  # shellcheck disable=SC2016  # the variables are the template's
  keys=$(kube get secret storage-config -n "$namespace" --ignore-not-found -o 'go-template={{range $key, $_ := .data}}{{$key}} {{end}}')
  case $keys in
    '' | 'localMinIO ') remove secret storage-config -n "$namespace" ;;
    *localMinIO*)
      kube patch secret storage-config -n "$namespace" --type=json -p '[{"op": "remove", "path": "/data/localMinIO"}]' >/dev/null
      say "  Secret storage-config of namespace $namespace keeps storages of yours: ${keys/localMinIO /}"
      ;;
    *) say "  Secret storage-config of namespace $namespace keeps storages of yours: $keys" ;;
  esac
}

disable_namespace() {
  exists namespace "$1" || return 0
  kubectl label namespace "$1" modelmesh-enabled- | sed 's/^/  /'
  remove_storage "$1"
}

remove_rights() {
  step "Removing rights and policies"
  if serves_cluster; then
    remove clusterrolebindings,clusterroles -l "$OURS"
    ! exists crd clusterservingruntimes.serving.kserve.io || remove clusterservingruntimes -l "$OURS"
  fi
  if [[ $(kube get validatingwebhookconfiguration modelmesh-servingruntime.serving.kserve.io --ignore-not-found \
    -o 'jsonpath={.webhooks[0].clientConfig.service.namespace}') == "$NAMESPACE" ]]; then
    remove validatingwebhookconfiguration modelmesh-servingruntime.serving.kserve.io
  fi
  ! exists crd certificates.cert-manager.io || remove certificates,issuers -l "$OURS"
  remove rolebindings,roles,serviceaccounts -l "$OURS"
  remove secret modelmesh-webhook-server-cert
  remove lease modelmesh-controller-leader-lock
}

remove_definitions() {
  local other
  other=$(other_user_of_definitions)
  if [[ -n $other ]]; then
    say "  definitions and admission policies stay, for ${other//$'\n'/ and }"
    return
  fi
  step "Removing the custom resource definitions, and all objects of these kinds"
  remove "$POLICIES" -l "$OURS"
  remove crd -l "$OURS"
}

remove_dependencies() {
  step "Removing etcd and MinIO of --quickstart"
  remove deployments,services,networkpolicies,secrets,jobs,configmaps,persistentvolumeclaims -l "$TRIAL"
  remove_storage "$NAMESPACE"
}

main() {
  read_arguments "$@"
  require_kubectl
  require_cluster
  [[ -n $NAMESPACE ]] || NAMESPACE=$(current_namespace)
  require_namespace "$NAMESPACE"
  local namespace namespaces
  namespaces=$(served_namespaces | sort -u)
  remove_controller
  for namespace in $namespaces; do
    remove_runtimes "$namespace"
  done
  for namespace in $USER_NAMESPACES; do
    disable_namespace "$namespace"
  done
  remove_rights
  remove_definitions
  remove_dependencies
  printf '\nRemoved ModelMesh Serving from namespace %s.\n' "$NAMESPACE"
}

main "$@"
