"""The two settings that the controller keeps up to date: where types may go, and what clients may call.

Both are read again when they change. One that cannot be understood is logged, and the last good one stays in
force.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import structlog

from mesh.errors import ConfigError

POLL_SECONDS = 1.0
"""How often files are looked at; a mounted ConfigMap is itself up to a minute behind."""
DEFAULT_TYPE = "_default"

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Requirement(msgspec.Struct, frozen=True):
    """Labels that instances must all have, and labels of which any makes an instance better."""

    required: tuple[str, ...] = ()
    preferred: tuple[str, ...] = ()


ANYWHERE = Requirement()


@dataclass(frozen=True, slots=True)
class TypeConstraints:
    """Which instances may hold models of which type."""

    types: Mapping[str, Requirement] = field(default_factory=dict)

    def of(self, model_type: str) -> Requirement:
        """The requirement of a type; unlisted types have that of `_default`, if there is one."""
        return self.types.get(model_type) or self.types.get(DEFAULT_TYPE) or ANYWHERE

    def reserve(self, labels: Collection[str]) -> int:
        """How little an instance is needed by types that may not, or would rather not, go elsewhere.

        Types without a preference go where this number is larger. The weights are the original's; `_default`
        counts as the type that it stands for.
        """
        prohibited = sum(not allows(requirement, labels) for requirement in self.types.values())
        preferring = sum(prefers(requirement, labels) for requirement in self.types.values())
        return 4 * prohibited - preferring


def allows(requirement: Requirement, labels: Collection[str]) -> bool:
    """Whether an instance with these labels may hold the model."""
    return all(label in labels for label in requirement.required)


def prefers(requirement: Requirement, labels: Collection[str]) -> bool:
    """Whether an instance is a preferred one. A label in both lists counts as required only."""
    return any(label in labels for label in requirement.preferred if label not in requirement.required)


class _Rpc(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    id_extraction_path: tuple[int, ...] = ()
    v_model_id: bool = False


class _DataplaneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    rpc_configs: dict[str, _Rpc] = {}
    allow_other_rpcs: bool = False


@dataclass(frozen=True, slots=True)
class RpcRules:
    """What clients may call, and where in a message the model's name is."""

    rpcs: Mapping[str, tuple[tuple[int, ...], bool]] = field(default_factory=dict)
    allow_other: bool = True


def parse_constraints(raw: bytes | str) -> TypeConstraints:
    """Reads `{"<type>": {"required": [...], "preferred": [...]}}`. Raises ConfigError."""
    try:
        return TypeConstraints(msgspec.json.decode(raw, type=dict[str, Requirement]))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"type constraints cannot be read: {error}") from error


def parse_rpc_rules(raw: bytes | str) -> RpcRules:
    """Reads the dataplane configuration. Raises ConfigError, also for members it does not know."""
    try:
        config = msgspec.json.decode(raw, type=_DataplaneConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"dataplane configuration cannot be read: {error}") from error
    rpcs = {name: (rpc.id_extraction_path, rpc.v_model_id) for name, rpc in config.rpc_configs.items()}
    return RpcRules(rpcs, config.allow_other_rpcs)


class Watched(Generic[T]):
    """A setting from a file that may change. `value` is the last good one."""

    def __init__(self, path: Path | None, parse: Callable[[bytes], T], default: T) -> None:
        self.value = default
        self._path = path
        self._parse = parse
        self._seen: object = None

    def look(self) -> bool:
        """Reads the file if it has changed; returns whether there is another value."""
        if self._path is None:
            return False
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version == self._seen:
                return False
            self._seen = version
            value = self._parse(self._path.read_bytes())
        except FileNotFoundError:
            if self._seen != "missing":
                log.warning("configuration file missing", path=str(self._path))
                self._seen = "missing"
            return False
        except (OSError, ConfigError) as error:
            log.error(  # noqa: TRY400 - the trace says nothing
                "configuration file not usable, the last good one stays",
                path=str(self._path),
                error=str(error),
            )
            return False
        changed = value != self.value
        self.value = value
        return changed

    async def follow(self, on_change: Callable[[T], None]) -> None:
        """Looks until cancelled, and tells of changes; without a file there are none."""
        if self._path is None:
            return
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self.look():
                log.info("configuration changed", path=str(self._path))
                on_change(self.value)
