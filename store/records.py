"""The records of the registry as JSON.

Names of members are those of the original mesh where it has the same thing, times are milliseconds since
1970. Every record keeps members it does not know when it is rewritten, so that instances of two releases can
share a registry during an upgrade.
"""

from typing import Any, Generic, Protocol, TypeVar

import msgspec

from store.errors import CorruptRecordError

T_co = TypeVar("T_co", covariant=True)
Unknown = dict[str, msgspec.Raw]
"""Members of a record that this release does not know, by name."""


class Resources(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A size or a capacity: a vector, of one dimension so far."""

    memory: int = 0
    """Bytes of the model server's memory."""

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.memory + other.memory)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.memory - other.memory)

    def fits(self, room: "Resources") -> bool:
        """Whether this much has place in `room`, in every dimension."""
        return self.memory <= room.memory

    def without_debt(self) -> "Resources":
        """The same with no dimension below zero."""
        return self if self.memory >= 0 else NOTHING

    def ceiling(self, other: "Resources") -> "Resources":
        """The larger of both in each dimension."""
        return Resources(max(self.memory, other.memory))


NOTHING = Resources()


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why a load failed on one instance. It outlives the next attempt, so that waiting times can grow."""

    msg: str = ""
    code: str = ""
    """Name of a gRPC status code."""
    n: int = 1
    """Failures in a row."""


class ModelRecord(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "path": "mPath",
        "key": "encKey",
        "instances": "instanceIds",
        "loaded": "loadedIn",
        "failed": "failedIn",
        "failures": "fails",
        "auto_delete": "autoDel",
        "last_used": "lu",
        "last_unload": "lul",
        "min_copies": "minCopies",
        "max_copies": "maxCopies",
        "pinned": "pin",
        "priority": "prio",
        "shortfall": "short",
    },
):
    """One model and its copies."""

    type: str = ""
    path: str = ""
    key: str = ""
    instances: dict[str, int] = {}
    """Copies, loading or loaded: instance id -> when the load started."""
    loaded: dict[str, int] = {}
    """Copies that can serve: instance id -> when the load ended. A subset of `instances`."""
    failed: dict[str, int] = {}
    """Instance id -> when a load failed there. Disjoint from `instances`."""
    failures: dict[str, Failure] = {}
    """Instance id -> why it failed there last; kept until a load succeeds."""
    size: Resources | None = None
    """As measured by the last instance that loaded it."""
    refs: int = 0
    """Vmodels that refer to this model; it cannot be deleted while there are any."""
    auto_delete: bool = False
    """Delete the model when the last vmodel leaves it."""
    last_used: int = 0
    """Written lazily: it may be hours behind."""
    last_unload: int = 0
    min_copies: int = 0
    """Copies that there shall always be."""
    max_copies: int = 0
    """Copies that there shall be at most; 0: as many as are useful."""
    pinned: bool = False
    """Its copies are never evicted."""
    priority: int = 0
    """Copies of models with a lower one are evicted first."""
    shortfall: str = ""
    """Why it has fewer copies than it shall have; empty where it has them."""


class InstanceRecord(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "lru_time": "lruTime",
        "capacity": "cap",
        "load_slots": "lThreads",
        "loading": "lInProg",
        "start_time": "startTime",
        "version": "vers",
        "location": "loc",
        "address": "addr",
        "default_size": "defSize",
        "ready": "ready",
    },
):
    """One mesh instance and the model server beside it."""

    address: str = ""
    """host:port where its peers reach it."""
    lru_time: int = 0
    """Last use of its oldest copy; 0 where it has none."""
    count: int = 0
    """Copies, loading or loaded."""
    capacity: Resources = NOTHING
    used: Resources = NOTHING
    """Copies and memory that is being freed."""
    default_size: Resources = NOTHING
    """Assumed for a model whose size nobody knows."""
    load_slots: int = 0
    """Loads at a time."""
    loading: int = 0
    """Loads queued, waiting or running."""
    rpm: int = 0
    """Requests a minute, lately."""
    ready: bool = False
    """Its model server can load and serve."""
    shutdown: bool = False
    """It is leaving: nothing new goes there."""
    start_time: int = 0
    version: str = ""
    location: str = ""
    zone: str = ""
    labels: tuple[str, ...] = ()


class VModelRecord(
    msgspec.Struct, frozen=True, omit_defaults=True, rename={"owner": "o", "active": "amid", "target": "tmid"}
):
    """An alias of a model, and where it is moving."""

    owner: str = ""
    active: str = ""
    """Model that serves now."""
    target: str = ""
    """Model that shall serve; the active one where nothing moves."""
    failed: bool = False
    """The target could not be loaded."""

    @property
    def in_transition(self) -> bool:
        """Whether it is moving."""
        return self.active != self.target


class Codec(Protocol[T_co]):
    """How a table's values are read and written."""

    keys_only: bool

    def decode(self, raw: bytes) -> tuple[T_co, Unknown | None]:
        """Reads a value. Raises CorruptRecordError."""

    def encode(self, value: Any, unknown: Unknown | None = None) -> bytes:
        """Writes a value and the members of its predecessor that we do not know."""


R = TypeVar("R", bound=msgspec.Struct)


class RecordCodec(Generic[R]):
    """JSON of one record type."""

    keys_only = False

    def __init__(self, record: type[R]) -> None:
        self._decoder = msgspec.json.Decoder(record)
        self._members = msgspec.json.Decoder(Unknown)
        self._encoder = msgspec.json.Encoder()
        self._known = {field.encode_name for field in msgspec.structs.fields(record)}

    def decode(self, raw: bytes) -> tuple[R, Unknown | None]:
        """Reads a record. Raises CorruptRecordError."""
        try:
            record = self._decoder.decode(raw)
            if self._encoder.encode(record) == raw:
                return record, None  # it is all there is: the quickest way to see that nothing is unknown
            members = self._members.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptRecordError(str(error)) from error
        if members.keys() <= self._known:
            return record, None
        return record, {name: value.copy() for name, value in members.items() if name not in self._known}

    def encode(self, value: R, unknown: Unknown | None = None) -> bytes:
        """Writes a record; `unknown` members come along as they were."""
        raw = self._encoder.encode(value)
        if not unknown:
            return raw
        return self._encoder.encode(self._members.decode(raw) | unknown)


class KeysOnly:
    """For who only wants to know which keys change."""

    keys_only = True

    def decode(self, raw: bytes) -> tuple[None, None]:  # noqa: ARG002
        """Looks at nothing."""
        return None, None

    def encode(self, value: Any, unknown: Unknown | None = None) -> bytes:  # noqa: ARG002
        """Refuses: there is nothing to write."""
        raise TypeError("a table of keys alone is read only")


MODELS = RecordCodec(ModelRecord)
INSTANCES = RecordCodec(InstanceRecord)
VMODELS = RecordCodec(VModelRecord)
KEYS = KeysOnly()
