"""PersistentVolumeClaims that pods mount: those of the storage Secret, and those that models name."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from controller import model_id

if TYPE_CHECKING:
    from api.core import Secret
    from api.v1alpha1 import PredictorSpec

JSON = dict[str, Any]

_TYPE = "pvc"
_VOLUME_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def of_secret(secret: Secret | None) -> set[str]:
    """Returns the claims that entries of the storage Secret name; what is no JSON object has none."""
    entries = [] if secret is None else [_entry(encoded) or {} for encoded in secret.data.values()]
    names = (entry.get("name") for entry in entries if entry.get("type") == _TYPE)
    return {name for name in names if name and isinstance(name, str)}


def unreadable(secret: Secret) -> list[str]:
    """Returns the names of the Secret's entries that are no JSON object, sorted."""
    return sorted(name for name, entry in secret.data.items() if _entry(entry) is None)


def _entry(encoded: str) -> JSON | None:
    """Returns an entry of the Secret; None where it is no JSON object."""
    try:
        entry = json.loads(base64.b64decode(encoded))
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


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
