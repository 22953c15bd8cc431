# shellcheck shell=bash
# Manifests of an installation: a copy of config/ in which its namespace is set. Sourced.

STAGE=  # the copy: $STAGE/config and $STAGE/runtimes

# Copies the manifests to a temporary folder, so that nothing of the user's is edited.
#   $1: a folder like config/, a .tgz of one, or the URL of such a file
#   $2: namespace of the controller
#   $3: the repository, whose runtimes are taken where the given folder has none beside it
stage_manifests() {
  local given=$1 namespace=$2 repository=$3 source
  STAGE=$(mktemp -d)
  trap 'rm -rf "$STAGE"' EXIT
  source=$(_unpacked "$given")
  [[ -f $source/default/Kustomization ]] || die "$given is not a folder of manifests: it has no default/Kustomization" \
    "give the path of config/ (-p), or run the script from the repository"
  cp -RL "$source" "$STAGE/config"
  if [[ -f $source/../runtimes/Kustomization ]]; then
    mkdir "$STAGE/runtimes" && cp "$source"/../runtimes/{Kustomization,*.yaml} "$STAGE/runtimes"
  else
    mkdir "$STAGE/runtimes" && cp "$repository"/runtimes/{Kustomization,*.yaml} "$STAGE/runtimes"
  fi
  _set_namespace "$namespace"
}

_unpacked() {
  local given=$1 folder=$STAGE/given
  case $given in
    http://* | https://*)
      command -v curl >/dev/null || die "curl is missing: it fetches $given"
      mkdir "$folder"
      curl -fsSL "$given" | tar -xz -C "$folder" || die "cannot fetch and unpack $given"
      ;;
    *.tgz | *.tar.gz)
      [[ -f $given ]] || die "$given does not exist"
      mkdir "$folder"
      tar -xzf "$given" -C "$folder" || die "cannot unpack $given"
      ;;
    *)
      [[ -d $given ]] || die "$given does not exist: it should be the folder config/ of the repository"
      printf '%s' "$given"
      return
      ;;
  esac
  # The archive holds config/ itself, or what is in it.
  find "$folder" -path '*/default/Kustomization' -print -quit | sed 's|/default/Kustomization$||'
}

# Each line that names the namespace says so; etcd's host is in a text that cannot have a comment.
_set_namespace() {
  local namespace=$1
  find "$STAGE/config" -type f -exec sed -i.bak \
    -e "/# the namespace\$/ s/modelmesh-serving\([^a-z-]\)/$namespace\1/" \
    -e "s/etcd\.modelmesh-serving:/etcd.$namespace:/" {} +
  find "$STAGE/config" -name '*.bak' -delete
}

# Builds a kustomization of the copy and applies it, with further arguments for kubectl.
apply_kustomization() {
  local name=$1
  shift
  kubectl kustomize "$STAGE/config/$name" >"$STAGE/built.yaml" || die "kustomization $name cannot be built (see above)"
  apply "$STAGE/built.yaml" "$@"
}

# Applies a file, saying only what changed; with further arguments for kubectl.
apply() {
  local file=$1 output patience=$((SECONDS + 60))
  shift
  until output=$(kube apply -f "$file" "$@" 2>&1); do
    # The cluster's network may need a moment to find a webhook that has just come up.
    [[ $output == *"failed calling webhook"* && $SECONDS -lt $patience ]] ||
      die "kubectl apply was refused:" "$output"
    sleep 2
  done
  grep -v -e ' unchanged$' <<<"$output" | sed 's/^/  /' || true
}
