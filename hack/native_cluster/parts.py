"""The programs of the cluster: their settings and command lines, all as paths inside the namespaces.

They have all ports to themselves in their network namespace, so each listens where it does by default.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hack.native_cluster import images
from hack.native_cluster.paths import (
    API_PORT,
    BRIDGE,
    CONTAINERD_SOCKET,
    DNS_ADDRESS,
    DOMAIN,
    INSIDE,
    NODE,
    NODE_ADDRESS,
    POD_RANGE,
    SERVICE_RANGE,
)
from hack.native_cluster.programs import CNI_PLUGINS, which

if TYPE_CHECKING:
    from pathlib import Path

_ETCD = "http://127.0.0.1:2379"
_PKI = INSIDE / "pki"
_CONFIG = INSIDE / "config"
KUBECONFIGS = INSIDE / "kubeconfigs"

PART_NAMES = (
    "etcd",
    "kube-apiserver",
    "containerd",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)


@dataclass(frozen=True, slots=True)
class Part:
    """One program.

    Attributes:
        name: of the part, of its log and of its program.
        program: its path inside.
        arguments: of the program.
        files: what it reads beside certificates, by the name in the configuration folder.
    """

    name: str
    program: Path
    arguments: list[str]
    files: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What it depends on that a running process cannot take over."""
        text = json.dumps([str(self.program), self.arguments, self.files])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def all_parts(kubernetes: Path, cgroup: str) -> list[Part]:
    """Return the parts in the order in which they start.

    Args:
        kubernetes: folder of Kubernetes' programs.
        cgroup: below which the kubelet keeps those of pods.
    """
    return [
        _etcd(),
        _api_server(kubernetes / "kube-apiserver"),
        _containerd(),
        Part("kube-controller-manager", kubernetes / "kube-controller-manager", _CONTROLLER_MANAGER),
        Part("kube-scheduler", kubernetes / "kube-scheduler", _SCHEDULER),
        _kubelet(kubernetes / "kubelet", cgroup),
        _proxy(kubernetes / "kube-proxy"),
    ]


def _etcd() -> Part:
    arguments = [
        f"--name={NODE}",
        f"--data-dir={INSIDE / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--auto-compaction-retention=1",
        "--logger=zap",
    ]
    return Part("etcd", which("etcd"), arguments)


def _api_server(program: Path) -> Part:
    arguments = [
        f"--advertise-address={NODE_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--etcd-servers={_ETCD}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--client-ca-file={_PKI / 'ca.crt'}",
        f"--tls-cert-file={_PKI / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={_PKI / 'kube-apiserver.key'}",
        f"--kubelet-client-certificate={_PKI / 'kubelet-client.crt'}",
        f"--kubelet-client-key={_PKI / 'kubelet-client.key'}",
        f"--kubelet-certificate-authority={_PKI / 'ca.crt'}",
        # The node's name does not resolve; logs, exec and port-forward go to its address.
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={_PKI / 'service-accounts.key'}",
        f"--service-account-signing-key-file={_PKI / 'service-accounts.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
    ]
    return Part("kube-apiserver", program, arguments)


def _kubeconfig(part: str) -> str:
    return str(KUBECONFIGS / part)


_CONTROLLER_MANAGER = [
    f"--kubeconfig={_kubeconfig('kube-controller-manager')}",
    "--leader-elect=false",
    "--use-service-account-credentials",
    f"--root-ca-file={_PKI / 'ca.crt'}",
    f"--service-account-private-key-file={_PKI / 'service-accounts.key'}",
    "--controllers=*,-node-ipam-controller,-cloud-node-lifecycle-controller",
    # There is no metrics-server: HorizontalPodAutoscalers are kept, but compute nothing.
]
_SCHEDULER = [f"--kubeconfig={_kubeconfig('kube-scheduler')}", "--leader-elect=false"]


def _containerd() -> Part:
    runtimes = 'plugins."io.containerd.grpc.v1.cri"'
    config = f"""version = 2
root = "{INSIDE / "containerd"}"
state = "/run/containerd"

[grpc]
address = "{CONTAINERD_SOCKET}"

[{runtimes}]
sandbox_image = "{images.PAUSE}"
# Without CAP_SYS_RESOURCE no process may lower its score, and every pod would fail.
restrict_oom_score_adj = true
disable_apparmor = true

[{runtimes}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[{runtimes}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{runtimes}.containerd.runtimes.runc.options]
BinaryName = "{which("runc")}"
SystemdCgroup = false

[{runtimes}.cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{_CONFIG / "cni"}"

[{runtimes}.registry]
config_path = "{_CONFIG / "registries"}"
"""
    network = {
        "cniVersion": "0.4.0",
        "name": "native",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    files = {
        "containerd.toml": config,
        "cni/10-native.conflist": json.dumps(network, indent=2),
        # An empty host table makes a pull fail at once: there is no registry to reach.
        "registries/_default/hosts.toml": "[host]\n",
    }
    return Part("containerd", which("containerd"), [f"--config={_CONFIG / 'containerd.toml'}"], files)


def _kubelet(program: Path, cgroup: str) -> Part:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(_PKI / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(_PKI / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(_PKI / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(_CONFIG / "resolv.conf"),
        "podLogsDir": str(INSIDE / "pod-logs"),
        "maxPods": 250,
        # The disk may be fuller than the defaults like, and no image could be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "shutdownGracePeriod": "0s",
    }
    arguments = [
        f"--config={_CONFIG / 'kubelet.yaml'}",
        f"--kubeconfig={_kubeconfig('kubelet')}",
        f"--root-dir={INSIDE / 'kubelet'}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]
    files = {
        "kubelet.yaml": json.dumps(config, indent=2),
        "resolv.conf": f"nameserver {DNS_ADDRESS}\n",
    }
    return Part("kubelet", program, arguments, files)


def _proxy(program: Path) -> Part:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": _kubeconfig("kube-proxy")},
        "hostnameOverride": NODE,
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        # Limits of connection tracking belong to the machine, not to us.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return Part(
        "kube-proxy",
        program,
        [f"--config={_CONFIG / 'kube-proxy.yaml'}"],
        {"kube-proxy.yaml": json.dumps(config, indent=2)},
    )
