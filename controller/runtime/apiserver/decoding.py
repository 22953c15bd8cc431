"""From what a client sent to an object the server stores: field validation, pruning, defaults, rules.

Fields of a custom resource are checked against the schema of its definition, those of a built-in kind against
Kubernetes' own. A field the schema does not know is refused (`Strict`), dropped with a warning (`Warn`), or
just dropped (`Ignore`), as the client asks; `kubectl` asks for `Strict`. Refusals carry kube-apiserver's
wording.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from controller.runtime.apiserver import fields, metadata, schema
from controller.runtime.apiserver.values import drop_nulls
from controller.runtime.errors import BadRequest, Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.apiserver.schema import Cause
    from controller.runtime.client import JSON


class FieldValidation(StrEnum):
    """What to do about unknown fields."""

    STRICT = "Strict"
    WARN = "Warn"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of a write.

    Attributes:
        field_validation: what to do about unknown fields.
        dry_run: check and answer, store nothing.
        field_manager: who the changed fields belong to from now on.
        warnings: collects what the client should be told though the write went through.
    """

    field_validation: FieldValidation = FieldValidation.WARN
    dry_run: bool = False
    field_manager: str = "unknown"
    warnings: list[str] = field(default_factory=list)


def decode(kind: ServedKind, obj: JSON, old: JSON | None, options: WriteOptions) -> None:
    """Prune `obj`, in place.

    Raises:
        BadRequest: metadata or a built-in kind has fields of the wrong type, or with `Strict` there are
            unknown fields.
        Invalid: a built-in kind lacks required fields.
    """
    wrong = [*metadata.wrong_types(obj["metadata"])]
    if wrong:
        raise _undecodable(kind, ", ".join(wrong))
    metadata.drop_empty(obj["metadata"])
    unknown = [f"metadata.{name}" for name in obj["metadata"] if name not in metadata.FIELD_TYPES]
    for path in unknown:
        del obj["metadata"][path.removeprefix("metadata.")]
    missing: list[Cause] = []
    if kind.schema is None:
        drop_nulls(obj)
        found = fields.prune(kind.resource, obj, old)
        if found.wrong:
            raise _undecodable(kind, ", ".join(map(str, found.wrong)))
        unknown += found.unknown
        missing = found.missing
    else:
        unknown += schema.prune(kind.schema, obj)
    if unknown and options.field_validation is FieldValidation.STRICT:
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise _undecodable(kind, f"strict decoding error: {listed}")
    if options.field_validation is FieldValidation.WARN:
        options.warnings.extend(f'unknown field "{path}"' for path in unknown)
    if missing:
        raise refusal(kind, obj["metadata"].get("name", ""), missing)


def _undecodable(kind: ServedKind, cause: str) -> BadRequest:
    name = kind.resource.kind
    return BadRequest(f'{name} in version "{kind.resource.version}" cannot be handled as a {name}: {cause}')


def complete(kind: ServedKind, obj: JSON) -> None:
    """Fill in, in place, defaults of the schema and of the kind.

    Raises:
        BadRequest: a built-in kind has a field of a type that its rules cannot read.
    """
    if kind.schema is not None:
        schema.default(kind.schema, obj)
    try:
        kind.prepare(obj)
    except (AttributeError, KeyError, TypeError) as error:
        raise _undecodable(kind, f"a field has the wrong type: {error}") from error


def check(kind: ServedKind, obj: JSON, old: JSON | None) -> None:
    """Raise Invalid, naming every field, when `obj` breaks its schema or a rule."""
    causes = [*metadata.check(obj, old)]
    if kind.schema is not None:
        causes += schema.validate(kind.schema, obj)
    if not causes:
        try:
            causes += kind.check(obj, old)
        except (AttributeError, KeyError, TypeError) as error:
            raise _undecodable(kind, f"a field has the wrong type: {error}") from error
    if causes:
        raise refusal(kind, obj["metadata"].get("name", ""), causes)


def refusal(kind: ServedKind, name: str, causes: Iterable[Cause]) -> Invalid:
    """Return the 422 that lists `causes`."""
    listed = list(causes)
    text = str(listed[0]) if len(listed) == 1 else f"[{', '.join(map(str, listed))}]"
    group = f".{kind.resource.group}" if kind.resource.group else ""
    details: JSON = {
        "name": name,
        "kind": kind.resource.kind,
        "causes": [cause.to_json() for cause in listed],
    }
    if kind.resource.group:
        details["group"] = kind.resource.group
    return Invalid(f'{kind.resource.kind}{group} "{name}" is invalid: {text}', details=details)
