"""What the controller's process is told from outside: command line and environment variables."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULTS_FILE = Path("/etc/model-serving/config/default/config-defaults.yaml")
"""Where the ConfigMap `model-serving-config-defaults` of an installation is mounted."""
WEBHOOK_CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")  # noqa: S108 -- as the original
"""Where the Secret with the webhook's certificate is mounted."""

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ms|s|m|h)")


def duration(text: str) -> float:
    """Reads a duration as Go's flags write it (`15s`, `1m30s`) and returns seconds; ValueError otherwise."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 15s")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line. Durations are seconds, addresses `host:port` with an optional host."""

    metrics_addr: str
    health_probe_bind_address: str
    enable_leader_election: bool
    leader_elect_type: str
    leader_elect_lease_duration_s: float
    leader_elect_lease_renew_deadline_s: float
    leader_elect_retry_period_s: float


def _truth(text: str) -> bool:
    if text.lower() in {"1", "t", "true"}:
        return True
    if text.lower() in {"0", "f", "false"}:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def parse_flags(argv: Sequence[str]) -> Flags:
    """Reads the command line, each flag with one dash or two; SystemExit with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="modelmesh controller", allow_abbrev=False)

    def add(name: str, default: object, about: str, **options: object) -> None:
        parser.add_argument(f"--{name}", f"-{name}", default=default, help=about, **options)  # type: ignore[arg-type]

    add("metrics-addr", ":8080", "where metrics are served")
    add("health-probe-bind-address", ":8081", "where /healthz and /readyz are served")
    add(
        "enable-leader-election",
        False,  # noqa: FBT003 -- the default of a flag
        "act only while holding the leader lock",
        nargs="?",
        const=True,
        type=_truth,
    )
    add("leader-elect-type", "lease", "kind of lock", choices=["lease", "life"])
    add("leader-elect-lease-duration-sec", "15s", "a duration: how long a lock holds", type=duration)
    add("leader-elect-lease-renew-deadline-sec", "10s", "a duration: give up when not renewed", type=duration)
    add("leader-elect-retry-period-sec", "2s", "a duration: between tries to get the lock", type=duration)
    parsed = parser.parse_args(argv)
    return Flags(
        metrics_addr=parsed.metrics_addr,
        health_probe_bind_address=parsed.health_probe_bind_address,
        enable_leader_election=parsed.enable_leader_election,
        leader_elect_type=parsed.leader_elect_type,
        leader_elect_lease_duration_s=parsed.leader_elect_lease_duration_sec,
        leader_elect_lease_renew_deadline_s=parsed.leader_elect_lease_renew_deadline_sec,
        leader_elect_retry_period_s=parsed.leader_elect_retry_period_sec,
    )


@dataclass(frozen=True, slots=True)
class Environment:
    """Environment variables.

    Attributes:
        namespace: the controller's own namespace.
        deployment: name of the controller's Deployment.
        etcd_secret: name of the Secret with `etcd_connection`.
        namespace_scope: whether only the own namespace is served.
        inference_services: whether InferenceServices are served; None: where they can be read.
        cluster_runtimes: whether ClusterServingRuntimes are; None: where they can be read.
        secrets: whether Secrets are watched in all served namespaces; None: where they can be.
        defaults_file: the installation's defaults of the configuration.
        kubeconfig: how to reach the API server; None inside a cluster.
        webhook_certificates: folder with the certificate of the webhook, which is served where there is one.
    """

    namespace: str
    deployment: str = "modelmesh-controller"
    etcd_secret: str = "model-serving-etcd"  # noqa: S105 -- the name of an object
    namespace_scope: bool = False
    inference_services: bool | None = None
    cluster_runtimes: bool | None = None
    secrets: bool | None = None
    defaults_file: Path = DEFAULTS_FILE
    kubeconfig: Path | None = None
    webhook_certificates: Path = WEBHOOK_CERTIFICATES


def _own_namespace(variables: Mapping[str, str]) -> str:
    if name := variables.get("NAMESPACE"):
        return name
    try:
        return _SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    except OSError:
        return "model-serving"


def _own_deployment(variables: Mapping[str, str]) -> str:
    if name := variables.get("CONTROLLER_DEPLOYMENT"):
        return name
    # A pod's name is its Deployment's, the ReplicaSet's hash and its own, joined by dashes.
    return variables.get("POD_NAME", "").rpartition("-")[0].rpartition("-")[0] or "modelmesh-controller"


def _switch(variables: Mapping[str, str], name: str) -> bool | None:
    return {"true": True, "false": False}.get(variables.get(name, ""))


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Reads the environment variables."""
    kubeconfig = variables.get("KUBECONFIG")
    return Environment(
        namespace=_own_namespace(variables),
        deployment=_own_deployment(variables),
        etcd_secret=variables.get("ETCD_SECRET_NAME") or "model-serving-etcd",
        namespace_scope=variables.get("NAMESPACE_SCOPE") == "true",
        inference_services=_switch(variables, "ENABLE_ISVC_WATCH"),
        cluster_runtimes=_switch(variables, "ENABLE_CSR_WATCH"),
        secrets=_switch(variables, "ENABLE_SECRET_WATCH"),
        defaults_file=Path(variables.get("CONFIG_DEFAULTS_FILE") or DEFAULTS_FILE),
        kubeconfig=Path(kubeconfig) if kubeconfig else None,
        webhook_certificates=Path(variables.get("WEBHOOK_CERT_DIR") or WEBHOOK_CERTIFICATES),
    )
