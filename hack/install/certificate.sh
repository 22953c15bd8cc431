# shellcheck shell=bash
# The webhook's certificate, signed by an authority that is made for it and forgotten. Sourced.

readonly CERTIFICATE=modelmesh-webhook-server-cert
readonly _SERVICE=modelmesh-webhook-server-service
readonly _DAYS=3650  # an expired one would refuse every change of a runtime
readonly _RENEW_S=$((60 * 60 * 24 * 60))

# Makes the Secret with the certificate, unless there is one that holds for two more months.
make_certificate() {
  local namespace=$1 folder
  if _certificate_is_good; then
    say "  the webhook's certificate is good until $(_entry tls.crt | openssl x509 -noout -enddate | cut -d= -f2)"
    return
  fi
  folder=$STAGE/certificate
  mkdir "$folder"
  _sign "$folder" "$namespace" || die "openssl cannot make the webhook's certificate"
  kube delete secret "$CERTIFICATE" --ignore-not-found >/dev/null
  kube create secret generic "$CERTIFICATE" --from-file="$folder/tls.crt" --from-file="$folder/tls.key" \
    --from-file="$folder/ca.crt" >/dev/null || die "Secret $CERTIFICATE cannot be made"
  kube label secret "$CERTIFICATE" app.kubernetes.io/managed-by=modelmesh-controller >/dev/null
  say "  made Secret $CERTIFICATE, good for $_DAYS days"
}

# Prints the authority in base64, as a webhook configuration wants it.
certificate_authority() { _entry ca.crt | base64 | tr -d '\n'; }

_entry() { kube get secret "$CERTIFICATE" -o "jsonpath={.data.${1//./\\.}}" 2>/dev/null | base64 -d; }

_certificate_is_good() {
  [[ -n $(_entry ca.crt) ]] && _entry tls.crt | openssl x509 -noout -checkend "$_RENEW_S" >/dev/null 2>&1
}

_sign() (
  cd "$1" || exit
  names=$_SERVICE.$2.svc
  {
    openssl req -x509 -newkey rsa:2048 -nodes -days "$_DAYS" -keyout ca.key -out ca.crt -subj "/CN=modelmesh-webhook-ca"
    openssl req -newkey rsa:2048 -nodes -keyout tls.key -out tls.csr -subj "/CN=$_SERVICE"
    printf 'subjectAltName=DNS:%s,DNS:%s.cluster.local\n' "$names" "$names" >names.cnf
    openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$_DAYS" -extfile names.cnf -out tls.crt
  } >openssl.log 2>&1 || {
    cat openssl.log >&2
    exit 1
  }
  rm ca.key
)
