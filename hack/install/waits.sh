# shellcheck shell=bash
# Waits that show progress, and tell what is stuck when they end without success. Sourced.

TIMEOUT=600  # seconds of each wait
readonly _INTERVAL=0.5

# Waits until a Deployment has all pods of its newest spec available.
wait_for_deployment() {
  _wait_for "deployment/$1" "$2" _deployment_done "$1" "$2"
}

wait_for_job() {
  _wait_for "job/$1" "app=$1" _job_done "$1"
}

wait_for_definitions() {
  local names=("$@")
  kubectl wait --for=condition=Established --timeout="${TIMEOUT}s" "${names[@]/#/customresourcedefinition/}" >/dev/null ||
    die "custom resource definitions are not accepted" "$(kube get "${names[@]/#/customresourcedefinition/}" \
      -o jsonpath='{range .items[*].status.conditions[?(@.status=="False")]}{.type}: {.message}{"\n"}{end}')"
}

#   $1: what is waited for; $2: selector of its pods; the rest: a command that prints the state and
#   succeeds when the wait is over
_wait_for() {
  local what=$1 selector=$2 state='' last='' start=$SECONDS told=$SECONDS
  shift 2
  while ! state=$("$@"); do
    if [[ $state != "$last" ]] || ((SECONDS - told >= 15)); then
      say "  $what: $state ($((SECONDS - start)) s)"
      last=$state told=$SECONDS
    fi
    if ((SECONDS - start >= TIMEOUT)); then
      diagnose "$selector"
      die "$what is not ready after $TIMEOUT s: $state" \
        "what is stuck is above; after a correction run the same command again, it continues"
    fi
    sleep "$_INTERVAL"
  done
  say "  $what: $state ($((SECONDS - start)) s)"
}

_deployment_done() {
  local generation observed wanted updated available replicas
  IFS='|' read -r generation observed wanted updated available replicas < <(kube get deployment "$1" -o jsonpath='{.metadata.generation}|{.status.observedGeneration}|{.spec.replicas}|{.status.updatedReplicas}|{.status.availableReplicas}|{.status.replicas}')
  printf '%s of %s pods available%s' "${available:-0}" "${wanted:-?}" "$(_pod_problem "$2")"
  [[ -n $generation && $generation == "$observed" && $wanted == "${updated:-0}" && $wanted == "${available:-0}" && $wanted == "${replicas:-0}" ]]
}

_job_done() {
  local succeeded failed
  IFS='|' read -r succeeded failed < <(kube get job "$1" -o jsonpath='{.status.succeeded}|{.status.conditions[?(@.type=="Failed")].message}')
  if [[ ${succeeded:-0} -ge 1 ]]; then
    printf 'done'
  else
    printf 'running%s' "${failed:+, failed: $failed}$(_pod_problem "app=$1")"
    return 1
  fi
}

# The reason for which a container waits, such as ImagePullBackOff; nothing where none does.
_pod_problem() {
  local reasons
  reasons=$(kube get pods -l "$1" -o jsonpath='{range .items[*].status.containerStatuses[*]}{.state.waiting.reason} {end}' 2>/dev/null)
  reasons=$(tr ' ' '\n' <<<"$reasons" | grep -v -e '^$' -e ContainerCreating -e PodInitializing | sort -u | paste -sd, -) || true
  printf '%s' "${reasons:+, $reasons}"
}

# Shows pods, warnings and the end of the logs.
diagnose() {
  local selector=$1 pod
  {
    printf '\n---- pods (%s)\n' "$selector"
    kube get pods -l "$selector" -o wide
    printf -- '---- warnings\n'
    kube get events --field-selector type=Warning --sort-by=.lastTimestamp | tail -n 15
    for pod in $(kube get pods -l "$selector" -o name); do
      printf -- '---- log of %s, its last lines\n' "$pod"
      kube logs "$pod" --all-containers --prefix --tail=15
      kube logs "$pod" --all-containers --prefix --tail=15 --previous 2>/dev/null
    done
    printf '\n'
  } >&2 || true
}
