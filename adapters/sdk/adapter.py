"""What a model server's adapter has to say: the one class that a new adapter subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from adapters.sdk.settings import Settings

INFERENCE = "inference.GRPCInferenceService"

# Methods of the V2 protocol that carry the model's name, and the field that does.
V2_METHODS: Mapping[str, Sequence[int]] = {f"{INFERENCE}/ModelInfer": [1], f"{INFERENCE}/ModelMetadata": [1]}


@dataclass(frozen=True, slots=True)
class Model:
    """A model that lies on disk and is to be loaded.

    `type` is its format's lower-case name, empty where nobody said; `path` a file or a folder; `schema` a
    file that describes its tensors; `disk_bytes` None where unknown.
    """

    id: str
    type: str
    path: Path
    schema: Path | None = None
    disk_bytes: int | None = None


class ServerAdapter(ABC):
    """Speaks to one model server; everything else about the SPI is the SDK's.

    The SDK never calls two methods for the same model at once. Methods that speak to the server raise
    `ServerUnreachableError` where it gives no answer and `ServerError` where it refuses.
    """

    title: ClassVar[str]
    """The server's name in messages."""
    folder_name: ClassVar[str]
    """Folder below the shared root that belongs to the server, by convention with a leading underscore."""
    methods: ClassVar[Mapping[str, Sequence[int]]] = V2_METHODS
    """Inference methods: full name without leading slash, to the path of the field with the model's name."""
    size_multiplier: ClassVar[float] = 1.25
    """Default estimate of a model's bytes in memory per byte on disk."""
    default_port: ClassVar[int] = 8001
    """Default management port of the server."""
    default_data_port: ClassVar[int | None] = None
    """Default inference port of the server, where it is another one."""
    measures_later: ClassVar[bool] = False
    """Whether `measured_size` takes seconds: then it is asked for by modelSize, after the load."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def folder(self) -> Path:
        """Where the server finds its models; one entry a model."""
        return self.settings.root / self.folder_name

    @property
    def kept(self) -> Collection[Path]:
        """Files in the server's folder or in the root that a purge leaves in place."""
        return ()

    def prepare(self) -> None:  # noqa: B027 - most servers need nothing
        """Makes what the server needs to start; called once, before all else.

        Raises:
            OSError: it cannot be made.
        """

    async def close(self) -> None:  # noqa: B027 - most servers have nothing to close
        """Lets go of the server's connection."""

    @abstractmethod
    async def is_ready(self) -> bool:
        """Whether the server can be told to load models now; unreachable is False, not an error."""

    @abstractmethod
    async def wait_lost(self) -> None:
        """Returns when the connection to a server that was ready is gone, as when its process died."""

    @abstractmethod
    async def loaded(self) -> list[str]:
        """Ids of the models that the server holds."""

    async def busy(self) -> list[str]:
        """Ids of models that the server is loading or unloading now, where it can tell.

        An adapter that died may have left some; their files stay until the server is done with them.
        """
        return []

    @abstractmethod
    async def version(self) -> str:
        """The server's version; empty where it does not tell."""

    @abstractmethod
    def lay_out(self, model: Model, folder: Path) -> None:
        """Makes the model's `folder`, which is new and empty, into what the server expects. Runs in a thread.

        Raises:
            InvalidModelError: the files are not what the model's type needs.
        """

    @abstractmethod
    async def load(self, model: Model) -> None:
        """Returns when the server has loaded the model that was laid out."""

    @abstractmethod
    async def unload(self, model_id: str) -> None:
        """Returns when the server holds the model no more; unknown to the server is success."""

    async def measured_size(self, model_id: str) -> int | None:  # noqa: ARG002 - for servers that can tell
        """Bytes that a loaded model takes, where the server can tell."""
        return None
