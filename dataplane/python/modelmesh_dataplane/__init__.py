"""The byte path of Modelmesh: gRPC and REST in, a model server or a peer out.

It moves requests and decides nothing. The policy fills its routing table (`Dataplane.update`), and takes from
it (`Dataplane.take`) what it is asked: about models for which the table has no usable copy (`Miss`), and the
calls of the management API (`Call`). The policy's own calls go by it, too (`Channel`).
"""

from modelmesh_dataplane._native import Call, Channel, CopyRoute, Dataplane, Gone, Miss, Reply, Sent

__all__ = ["Call", "Channel", "CopyRoute", "Dataplane", "Gone", "Miss", "Reply", "Sent"]
