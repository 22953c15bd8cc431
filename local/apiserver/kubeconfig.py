"""The kubeconfig that points `kubectl` and the controller at the local server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "modelmesh-local"


def write_kubeconfig(path: Path, url: str, namespace: str) -> None:
    """Write a kubeconfig for the server at `url`, with `namespace` as the default one.

    It appears whole or not at all: a client never reads half a file.
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _NAME, "cluster": {"server": url}}],
        "users": [{"name": _NAME, "user": {}}],
        "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME, "namespace": namespace}}],
        "current-context": _NAME,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(yaml.safe_dump(config, sort_keys=False))
    draft.chmod(0o600)
    draft.replace(path)
