"""The Deployment of a runtime: pure functions from its spec and the configuration to the object.

`pod` puts the parts together; `mesh`, `server` and `storage` build the containers, `volumes` what they
share, `scheduling` where they may run.
"""

from controller.deployment.pod import PodContext, Tls, build, name_of

__all__ = ["PodContext", "Tls", "build", "name_of"]
