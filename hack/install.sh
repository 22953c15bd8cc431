#!/usr/bin/env bash
# Installs ModelMesh Serving with kubectl. May be run again at any time: it changes what differs and continues
# where an earlier run ended.
set -euo pipefail

HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
REPOSITORY=$(dirname "$HERE")
# shellcheck source=hack/install/say.sh
source "$HERE/install/say.sh"
# shellcheck source=hack/install/manifests.sh
source "$HERE/install/manifests.sh"
# shellcheck source=hack/install/waits.sh
source "$HERE/install/waits.sh"
# shellcheck source=hack/install/certificate.sh
source "$HERE/install/certificate.sh"
# shellcheck source=hack/install/dependencies.sh
source "$HERE/install/dependencies.sh"

NAMESPACE=
CONFIG=$REPOSITORY/config
USER_NAMESPACES=
CONTROLLER_IMAGE=
NAMESPACE_SCOPE=${NAMESPACE_SCOPE_MODE:-false}
DELETE_FIRST=false
QUICKSTART=false
FVT=false
DEVELOPER_LOGS=false
GENERATE=false
KEPT_DEFINITIONS=
CERTIFICATES=none  # none, self-signed or cert-manager

usage() {
  cat >&2 <<'EOF'
usage: install.sh --namespace NAMESPACE [options]

  -n, --namespace NS            where the controller goes; has to exist
  -p, --install-config-path P   the manifests: a folder like config/, a .tgz of one, or the URL of such a file
  -d, --delete                  remove an earlier installation of that namespace first
  -u, --user-namespaces "A B"   label further namespaces to be served; with --quickstart, give them the storage Secret
  --quickstart                  bring etcd, and MinIO with sample models, for trials
  --fvt                         as --quickstart, with volumes that hold the sample models, and --enable-self-signed-ca
  --generate-credentials        random credentials for that MinIO in place of the documented example
  --namespace-scope-mode        serve this namespace alone (default: the variable NAMESPACE_SCOPE_MODE)
  --modelmesh-serving-image I   another image of the controller
  --enable-self-signed-ca       bring the admission webhook, with a certificate that openssl makes
  --enable-cert-manager         bring the admission webhook, with a certificate of cert-manager
  --timeout SECONDS             of each wait; 600
  -dev, --dev-mode-logging      have the controller log more
  -h, --help                    this text

Without a webhook the same mistakes are refused by admission policies, which are always installed.
EOF
  exit 2
}

read_arguments() {
  while (($#)); do
    case $1 in
      -n | --n | -namespace | --namespace) need_value "$@" && NAMESPACE=$2 && shift ;;
      -p | --p | -install-config-path | --install-config-path) need_value "$@" && CONFIG=$2 && shift ;;
      -u | --u | -user-namespaces | --user-namespaces) need_value "$@" && USER_NAMESPACES=$2 && shift ;;
      -modelmesh-serving-image | --modelmesh-serving-image) need_value "$@" && CONTROLLER_IMAGE=$2 && shift ;;
      --timeout) need_value "$@" && TIMEOUT=$2 && shift ;;
      -d | --d | -delete | --delete) DELETE_FIRST=true ;;
      -dev | --dev | -dev-mode | --dev-mode | -dev-mode-logging | --dev-mode-logging) DEVELOPER_LOGS=true ;;
      --quickstart) QUICKSTART=true ;;
      --fvt) QUICKSTART=true FVT=true CERTIFICATES=self-signed ;;
      --generate-credentials) GENERATE=true ;;
      --namespace-scope-mode) NAMESPACE_SCOPE=true ;;
      --enable-self-signed-ca) CERTIFICATES=self-signed ;;
      --enable-cert-manager) CERTIFICATES=cert-manager ;;
      -h | --help) usage ;;
      *) die "unknown option: $1" "install.sh --help lists all" ;;
    esac
    shift
  done
  check_arguments
}

check_arguments() {
  [[ -n $NAMESPACE ]] || die "--namespace is missing" "for instance: install.sh --namespace modelmesh-serving --quickstart"
  [[ $TIMEOUT =~ ^[1-9][0-9]*$ ]] || die "--timeout is '$TIMEOUT', not a number of seconds"
  if [[ $NAMESPACE_SCOPE == true && -n $USER_NAMESPACES ]]; then
    die "--user-namespaces needs cluster scope" "leave --namespace-scope-mode out, or install in each namespace by itself"
  fi
  if [[ $GENERATE == true && $QUICKSTART == false ]]; then
    die "--generate-credentials is for the MinIO that --quickstart or --fvt brings"
  fi
}

check_cluster() {
  step "Looking at the cluster"
  require_kubectl
  require_cluster
  require_namespace "$NAMESPACE"
  check_other_installations
  [[ $CERTIFICATES != self-signed ]] || require_openssl
  kubectl config set-context --current --namespace="$NAMESPACE" >/dev/null 2>&1 ||
    warn "the namespace of kubectl's context stays as it is: give --namespace $NAMESPACE in what you do next"
  if [[ $CERTIFICATES == cert-manager ]] && ! exists crd certificates.cert-manager.io; then
    die "cert-manager is not in the cluster" "install it (https://cert-manager.io), or use --enable-self-signed-ca"
  fi
  say "  namespace $NAMESPACE, $([[ $NAMESPACE_SCOPE == true ]] && echo "for itself alone" || echo "for all enabled namespaces")"
}

# One controller serves the cluster, and there is one webhook.
check_other_installations() {
  local other
  if [[ $NAMESPACE_SCOPE != true ]]; then
    other=$(kube get clusterrolebinding modelmesh-controller-rolebinding --ignore-not-found -o 'jsonpath={.subjects[0].namespace}')
    [[ -z $other || $other == "$NAMESPACE" ]] || ! exists deployment modelmesh-controller -n "$other" ||
      die "the controller in namespace $other serves the whole cluster already" \
        "remove it (delete.sh -n $other), or use --namespace-scope-mode"
  fi
  local webhook=modelmesh-servingruntime.serving.kserve.io
  exists validatingwebhookconfiguration "$webhook" || return 0
  other=$(kube get validatingwebhookconfiguration "$webhook" -o 'jsonpath={.webhooks[0].clientConfig.service.namespace}')
  if [[ $other == "$NAMESPACE" ]]; then
    keep_webhook "$(kube get validatingwebhookconfiguration "$webhook" -o 'jsonpath={.metadata.annotations}')"
  elif [[ $CERTIFICATES != none ]] && exists deployment modelmesh-controller -n "$other"; then
    die "the webhook of namespace $other is there already" "leave --enable-self-signed-ca and --enable-cert-manager out"
  fi
}

# A webhook that nobody serves any more would refuse every runtime, so one that is there stays served.
keep_webhook() {
  [[ $CERTIFICATES == none ]] || return 0
  CERTIFICATES=self-signed
  [[ $1 != *cert-manager.io/inject-ca-from* ]] || CERTIFICATES=cert-manager
  say "  the admission webhook of before stays, with a certificate: $CERTIFICATES"
}

require_etcd_secret() {
  exists secret model-serving-etcd || die "namespace $NAMESPACE has no Secret model-serving-etcd, which says where etcd is" \
    "make it as docs/how-to/install.md shows, or use --quickstart for an etcd to try with"
}

# Writes the kustomization of this installation: the scope's, with what the options add.
write_overlay() {
  local folder=$STAGE/config/install entry=default
  [[ $NAMESPACE_SCOPE != true ]] || entry="namespace-scope"
  mkdir "$folder"
  {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../%s]\n' "$entry"
    case $CERTIFICATES in
      self-signed) printf 'components: [../webhook]\n' ;;
      cert-manager) printf 'components: [../webhook, ../certmanager]\n' ;;
    esac
    [[ -z $CONTROLLER_IMAGE ]] || printf_image "$CONTROLLER_IMAGE"
    printf 'patches:\n'
    printf_definitions_of_others
    [[ $CERTIFICATES != self-signed ]] || printf_authority
    [[ $DEVELOPER_LOGS != true ]] || printf_logging
  } >"$folder/Kustomization"
}

# Definitions that KServe has brought stay as they are: its own may be newer than ours.
printf_definitions_of_others() {
  local name
  for name in $KEPT_DEFINITIONS; do
    cat <<EOF
  - patch: |
      \$patch: delete
      apiVersion: apiextensions.k8s.io/v1
      kind: CustomResourceDefinition
      metadata: {name: $name}
EOF
  done
}

find_definitions_of_others() {
  local name
  exists deployments -A --field-selector metadata.name=kserve-controller-manager || return 0
  for name in inferenceservices servingruntimes clusterservingruntimes; do
    name+=.serving.kserve.io
    [[ $name != cluster* || $NAMESPACE_SCOPE != true ]] || continue
    exists crd "$name" && [[ $(kube get crd "$name" -o 'jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}') != modelmesh-controller ]] || continue
    KEPT_DEFINITIONS+=" $name"
    say "  definition $name stays as KServe brought it"
  done
}

printf_image() {
  local name=$1 tag='' digest=''
  [[ $name != *@* ]] || { digest=${name#*@} name=${name%%@*}; }
  [[ ${name##*/} != *:* ]] || { tag=${name##*:} name=${name%:*}; }
  [[ -n $tag$digest ]] || die "image $1 has neither tag nor digest: say which one is meant"
  printf 'images:\n  - name: modelmesh/controller\n    newName: "%s"\n' "$name"
  if [[ -n $digest ]]; then printf '    digest: "%s"\n' "$digest"; else printf '    newTag: "%s"\n' "$tag"; fi
}

printf_authority() {
  cat <<EOF
  - target: {kind: ValidatingWebhookConfiguration}
    patch: |
      - {op: add, path: /webhooks/0/clientConfig/caBundle, value: $(certificate_authority)}
EOF
}

printf_logging() {
  cat <<'EOF'
  - target: {kind: Deployment, name: modelmesh-controller}
    patch: |
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: DEV_MODE_LOGGING, value: "true"}}
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: LOG_LEVEL, value: DEBUG}}
EOF
}

install_controller() {
  local definitions=(inferenceservices predictors servingruntimes)
  [[ $NAMESPACE_SCOPE == true ]] || definitions+=(clusterservingruntimes)
  step "Installing the controller"
  [[ $CERTIFICATES != self-signed ]] || make_certificate "$NAMESPACE"
  find_definitions_of_others
  write_overlay
  apply_kustomization install
  make_storage_secret "$NAMESPACE"
  wait_for_definitions "${definitions[@]/%/.serving.kserve.io}"
  wait_for_deployment modelmesh-controller control-plane=modelmesh-controller
}

install_runtimes() {
  step "Installing the serving runtimes"
  if [[ $NAMESPACE_SCOPE == true ]]; then
    apply_kustomization namespace-runtimes
  else
    apply_kustomization runtimes
  fi
}

enable_user_namespaces() {
  local storage=''
  [[ $QUICKSTART != true ]] || storage=--create-storage-secret
  "$HERE/setup_user_namespaces.sh" -u "$USER_NAMESPACES" -c "$NAMESPACE" -p "$CONFIG" ${storage:+"$storage"}
}

main() {
  read_arguments "$@"
  check_cluster
  stage_manifests "$CONFIG" "$NAMESPACE" "$REPOSITORY"
  [[ $DELETE_FIRST != true ]] || "$HERE/delete.sh" -n "$NAMESPACE" -p "$CONFIG" ${USER_NAMESPACES:+-u "$USER_NAMESPACES"}
  if [[ $QUICKSTART == true ]]; then
    step "Installing etcd and MinIO"
    install_dependencies "$GENERATE"
  fi
  require_etcd_secret
  install_controller
  install_runtimes
  [[ -z $USER_NAMESPACES ]] || enable_user_namespaces
  if [[ $FVT == true ]]; then
    step "Filling the volumes"
    install_volumes
  fi
  printf '\nSuccessfully installed ModelMesh Serving!\n'
}

main "$@"
