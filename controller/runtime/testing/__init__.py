"""A real API server for tests: etcd and kube-apiserver as processes of this machine, and nothing else.

    async with KubeApiServer(folder, Binaries.from_environment()) as server, await server.client() as client:
        await install_definitions(client, definitions)
        ...

There are no controllers and no nodes: a Deployment makes no pods, owners' deletion leaves what they own, a
namespace that is deleted stays Terminating. That is what a test of reconcilers wants; where it needs the
collector of owned objects or running pods, it needs a cluster.

It needs the package `trustme` and the two programs, which `setup-envtest` installs (its KUBEBUILDER_ASSETS
is what `Binaries.from_environment` reads).
"""

from controller.runtime.testing.binaries import Binaries
from controller.runtime.testing.definitions import install_definitions
from controller.runtime.testing.errors import TestEnvironmentError
from controller.runtime.testing.kube_apiserver import KubeApiServer
from controller.runtime.testing.proxy import Proxy

__all__ = ["Binaries", "KubeApiServer", "Proxy", "TestEnvironmentError", "install_definitions"]
