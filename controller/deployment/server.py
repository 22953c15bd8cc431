"""The containers of the runtime's own spec, with what the mesh needs added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.deployment.context import DROP_ALL, PodContext, shared_mounts, socket_mounts, wait_for_mesh

if TYPE_CHECKING:
    from api.core import Container

JSON = dict[str, Any]


def container(context: PodContext, given: Container) -> JSON:
    """Builds one of them."""
    built = given.dump()
    user_mounts = built.pop("volumeMounts", [])
    taken = {m["mountPath"] for m in user_mounts}
    mounts = [m for m in shared_mounts(context) if m["mountPath"] not in taken]
    built["lifecycle"] = wait_for_mesh()
    built.setdefault("securityContext", DROP_ALL)
    built["volumeMounts"] = [*mounts, *user_mounts, *socket_mounts(context)]
    return built
