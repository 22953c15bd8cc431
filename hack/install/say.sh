# shellcheck shell=bash disable=SC2153  # NAMESPACE is set by the script that sources this
# What the install scripts say, how they end, and what they need of this machine. Sourced.

readonly FATAL=10  # the original's status for everything that cannot go on

say() { printf '%s\n' "$*"; }
step() { printf '\n==> %s\n' "$*"; }
warn() { printf 'WARNING: %s\n' "$*" >&2; }

die() {
  printf 'ERROR: %s\n' "$1" >&2
  shift
  (($# == 0)) || printf '       %s\n' "$@" >&2
  exit "$FATAL"
}

# Fails where an option has no value: `need_value "$@"` with the option first.
need_value() { [[ $# -ge 2 && $2 != -* ]] || die "$1 needs a value"; }

# kubectl in the namespace of the controller, whatever that of the context is.
kube() { kubectl --namespace "$NAMESPACE" "$@"; }

require_kubectl() {
  command -v kubectl >/dev/null || die "kubectl is missing" \
    "install it: https://kubernetes.io/docs/tasks/tools/#kubectl"
  if ! kubectl kustomize --help >/dev/null 2>&1; then
    die "this kubectl cannot build kustomizations" "install kubectl 1.30 or newer, which has kustomize built in"
  fi
}

require_openssl() {
  command -v openssl >/dev/null || die "openssl is missing: it makes the webhook's certificate" \
    "install it, or leave --enable-self-signed-ca out: the admission policies refuse the same mistakes"
}

require_cluster() {
  local version
  version=$(kubectl version -o json 2>/dev/null | server_minor) || version=
  [[ -n $version ]] || die "the Kubernetes API server does not answer" \
    "check KUBECONFIG and the context: kubectl config current-context; kubectl cluster-info"
  ((version >= 30)) || die "the cluster has Kubernetes 1.$version; 1.30 or newer is needed for admission policies"
}

# Reads `kubectl version -o json` and prints the server's minor version.
server_minor() {
  sed -n '/"serverVersion"/,$ s/.*"minor": "\([0-9]*\).*/\1/p' | head -n 1
}

# Whether there is such an object. An answer that does not come is not a no: it ends the script.
exists() {
  local found
  found=$(kube get "$@" --ignore-not-found -o name) || die "kubectl get $*: the cluster does not say (see above)"
  [[ -n $found ]]
}

require_namespace() {
  exists namespace "$1" || die "namespace $1 does not exist" "make it: kubectl create namespace $1"
}
