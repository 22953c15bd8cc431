"""`modelmesh top`."""

from mesh.command import top as main

__all__ = ["main"]
