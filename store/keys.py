"""Where things are in the store.

The layout is that of the original mesh (`<root>/<prefix>/<service>/registry/<model id>` and so on) with our
format version in between, so that a mesh of ours never reads or writes what the original's pods left behind.
"""

from dataclasses import dataclass

FORMAT_VERSION = "v1"
"""Changes when a release can no longer read the records of the one before."""


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of one mesh service; prefixes end with a slash.

    The store itself adds the connection's root prefix.
    `root_prefix` is what comes before everything else within one installation: empty for the controller's own
    namespace, `/mm_ns/<namespace>` for any other.
    """

    root_prefix: str
    service: str
    kv_prefix: str = "mm"

    @property
    def base(self) -> str:
        """The part that all keys share."""
        return f"{self.root_prefix.rstrip('/')}/{self.kv_prefix}/{self.service}/{FORMAT_VERSION}/"

    @property
    def models(self) -> str:
        """Model records by model id (which may contain slashes)."""
        return f"{self.base}registry/"

    @property
    def vmodels(self) -> str:
        """Vmodel records by vmodel id."""
        return f"{self.base}vmodels/"

    @property
    def instances(self) -> str:
        """Instance records by instance id; each ends with its process's lease."""
        return f"{self.base}instances/"

    @property
    def epoch(self) -> str:
        """A random value, written once: when it changes, the store lost its content, nobody deleted it."""
        return f"{self.base}epoch"
