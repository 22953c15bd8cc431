"""PersistentVolumeClaims that pods mount: those of the storage Secret, and those that models name."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING

from controller import model_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.core import Secret
    from api.v1alpha1 import PredictorSpec

_TYPE = "pvc"
_VOLUME_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def of_secret(secret: Secret | None) -> set[str]:
    """Returns the claims that entries of the storage Secret name; what is no JSON object has none."""
    return set() if secret is None else {name for entry in secret.data.values() for name in _claim(entry)}


def _claim(encoded: str) -> Iterator[str]:
    try:
        entry = json.loads(base64.b64decode(encoded))
    except ValueError:
        return
    if isinstance(entry, dict) and entry.get("type") == _TYPE and isinstance(entry.get("name"), str):
        yield from filter(None, [entry["name"]])


def unreadable(secret: Secret) -> list[str]:
    """Returns the names of the Secret's entries that are no JSON object, sorted."""
    return sorted(name for name, entry in secret.data.items() if not _is_object(entry))


def _is_object(encoded: str) -> bool:
    try:
        return isinstance(json.loads(base64.b64decode(encoded)), dict)
    except ValueError:
        return False


def of_model(model: PredictorSpec) -> str:
    """Returns the claim that a model names in its storage parameters; empty where it names none."""
    _, _, parameters = model_id.storage_fields(model)
    return parameters.get("name", "") if parameters.get("type") == _TYPE else ""


def volume_name(claim: str) -> str:
    """Returns the name of a claim's volume: the claim's, where a volume can have it.

    A claim's name may be longer than a volume's and have dots in it.
    """
    if _VOLUME_NAME.fullmatch(claim):
        return claim
    return f"pvc-{hashlib.sha256(claim.encode()).hexdigest()[:16]}"
