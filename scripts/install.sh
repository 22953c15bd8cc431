#!/usr/bin/env bash
# The name that users of KServe ModelMesh know.
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../hack/install.sh" "$@"
