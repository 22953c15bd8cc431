"""The objects that every local cluster starts with: YAML templates with `$name` placeholders."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import yaml

from local.errors import LocalError
from local.home import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from api.meta import JSON

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent

BUCKET = "modelmesh-example-models"

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # noqa: S105 -- AWS' documentation pair, a secret of nobody


def definitions() -> Iterator[JSON]:
    """Yield the CustomResourceDefinitions."""
    for file in sorted((_ROOT / "config" / "crd").glob("*.yaml")):
        yield from _documents(file.read_text())


def policies() -> Iterator[JSON]:
    """Yield the ValidatingAdmissionPolicies and their bindings."""
    for file in sorted((_ROOT / "config" / "admission").glob("*.yaml")):
        yield from _documents(file.read_text())


def objects(*, etcd_port: int, s3_port: int) -> Iterator[JSON]:
    """Yield the objects of the namespace, in the order in which they are made.

    Args:
        etcd_port: where etcd will listen on 127.0.0.1.
        s3_port: where the S3 server will listen on 127.0.0.1.
    """
    values = {
        "namespace": NAMESPACE,
        "etcd_port": str(etcd_port),
        "s3_port": str(s3_port),
        "bucket": BUCKET,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    for file in sorted(_HERE.glob("*.yaml")):
        yield from _documents(Template(file.read_text()).substitute(values))


def runtimes(types: Collection[str]) -> Iterator[JSON]:
    """Yield the shipped ServingRuntimes of these server types.

    Raises:
        LocalError: names the types that there are.
    """
    shipped = _shipped()
    if unknown := sorted(set(types) - set(shipped)):
        known = ", ".join(sorted(shipped))
        raise LocalError(f"no shipped runtime for {', '.join(unknown)}; there is one for each of: {known}")
    for server_type in types:
        runtime = shipped[server_type]
        runtime["metadata"]["namespace"] = NAMESPACE
        yield runtime


def _shipped() -> dict[str, JSON]:
    files = sorted((_ROOT / "runtimes").glob("*.yaml"))
    found = [runtime for file in files for runtime in _documents(file.read_text())]
    return {runtime["spec"]["builtInAdapter"]["serverType"]: runtime for runtime in found}


def _documents(text: str) -> Iterator[JSON]:
    for document in yaml.load_all(text, Loader=_Loader):
        if document:
            yield document


# libyaml's parser reads the 216 KB of the InferenceService definition ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
