"""The byte path of Modelmesh: gRPC and REST in, a model server or a peer out.

It moves requests and decides nothing. The policy fills its routing table (`Dataplane.update`) and is asked,
by a callback, about models for which the table has no usable copy (`Miss`).
"""

from modelmesh_dataplane._native import CopyRoute, Dataplane, Miss

__all__ = ["CopyRoute", "Dataplane", "Miss"]
