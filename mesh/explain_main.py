"""`modelmesh explain`."""

from mesh.command import explain as main

__all__ = ["main"]
