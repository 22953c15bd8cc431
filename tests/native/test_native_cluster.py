"""A native cluster of its own, beside any other on this machine: `make test-native-cluster`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hack.native_cluster import cluster, programs
from hack.native_cluster.images import BUSYBOX_IMAGE, ProgramImage, write_archive
from hack.native_cluster.parts import PART_NAMES, Part, all_parts
from hack.native_cluster.paths import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.native_cluster, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "hack" / "native-cluster"
_CACHE = Path(os.environ.get("MODELMESH_HOME") or ROOT / ".modelmesh") / "cache"


@dataclass
class Native:
    """The command, with a home of its own and the builds of the repository."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"MODELMESH_HOME": str(self.home), "MODELMESH_CACHE": str(_CACHE)}

    def __call__(self, *arguments: str, check: bool = True, given: str = "") -> str:
        done = subprocess.run(
            [PROGRAM, *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        if check and done.returncode:
            pytest.fail(f"native-cluster {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def kubectl(self, *arguments: str, given: str = "", check: bool = True) -> str:
        return self("exec", "--", "kubectl", *arguments, given=given, check=check)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given="\n---\n".join(json.dumps(each) for each in objects))

    def pids(self) -> dict[str, int]:
        """Return the parts that run."""
        return {
            name: int(pid)
            for name, pid in re.findall(
                r"^(\S+) +running, pid (\d+)$", self("status", check=False), re.MULTILINE
            )
        }

    def wait_ready(self, *pods: str) -> None:
        self.kubectl("wait", "--for=condition=Ready", "--timeout=90s", *(f"pod/{pod}" for pod in pods))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    found = Native(tmp_path_factory.mktemp("native"))
    try:
        found("up")
        yield found
    finally:
        found("down", check=False)


def _pod(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "shared"}}]
    container = {
        "name": "main",
        "image": BUSYBOX_IMAGE,
        "command": list(command),
        "ports": [{"name": "http", "containerPort": 8080}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        **spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0},
    }


@pytest.fixture(scope="module")
def workload(native: Native) -> Native:
    """Two pods that share a volume; one serves it by HTTP through a Service."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "shared"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    web = _pod("web", "/bin/sh", "-c", "echo started; exec busybox httpd -f -p 8080 -h /data")
    native.apply(claim, service, web, _pod("client", "sleep", "1000000"))
    native.wait_ready("web", "client")
    native.kubectl("exec", "client", "--", "sh", "-c", "echo shared > /data/file")
    return native


_GET = r"printf 'GET /file HTTP/1.0\r\n\r\n' | busybox nc -w 3"  # a static busybox's wget crashes on glibc


def _answers(native: Native) -> bool:
    """Say whether a pod reaches another one by the name of its Service."""
    found = native.kubectl("exec", "client", "--", "nslookup", "web.default.svc.cluster.local", check=False)
    addresses = re.findall(r"^Address: *(10\.96\.\d+\.\d+)$", found, re.MULTILINE)
    if not addresses:
        return False
    said = native.kubectl("exec", "client", "--", "sh", "-c", f"{_GET} {addresses[-1]} 80", check=False)
    return said.endswith("shared\n")


def _eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def test_pods_reach_services_by_name_and_share_volumes(workload: Native) -> None:
    assert _eventually(lambda: _answers(workload))
    assert "shared" in workload.kubectl("exec", "web", "--", "cat", "/data/file")
    assert "started" in workload.kubectl("logs", "web")


def test_the_memory_limit_of_a_container_holds(workload: Native) -> None:
    greedy = _pod(
        "greedy",
        *("sh", "-c", 'x=x; while :; do x="$x$x"; done'),
        resources={"limits": {"memory": "32Mi"}},
    )
    greedy["spec"]["restartPolicy"] = "Never"
    workload.apply(greedy)
    reason = "{.status.containerStatuses[0].state.terminated.reason}"
    workload.kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s", "pod/greedy")
    assert workload.kubectl("get", "pod", "greedy", f"-o=jsonpath={reason}") in {"OOMKilled", "Error"}


def test_ports_are_forwarded_inside_and_the_forwarder_ends_with_its_signal(workload: Native) -> None:
    forward = [PROGRAM, "exec", "--", "kubectl", "port-forward", "service/web", "18080:80"]
    forwarder = subprocess.Popen(forward, env=workload.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert forwarder.stdout is not None
        assert "Forwarding from 127.0.0.1:18080" in forwarder.stdout.readline()
        assert workload("exec", "--", "sh", "-c", f"{_GET} 127.0.0.1 18080").endswith("shared\n")
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", 18080), timeout=3):
            pass
    finally:
        forwarder.terminate()
    assert forwarder.wait(10) != 0
    assert "shared" not in workload("exec", "--", "sh", "-c", f"{_GET} 127.0.0.1 18080", check=False)


def test_exec_hands_the_status_of_the_program_on(native: Native) -> None:
    command = [PROGRAM, "exec", "--", "sh", "-c", "exit 7"]
    assert subprocess.run(command, env=native.environment, check=False).returncode == 7
    assert "there is no program nonesuch" in native("exec", "--", "nonesuch", check=False)


def test_up_again_leaves_what_runs_alone(native: Native) -> None:
    before = native.pids()
    assert sorted(before) == sorted(PART_NAMES)
    assert "starting" not in native("up")
    assert native.pids() == before


@pytest.mark.parametrize("part", PART_NAMES)
def test_up_starts_a_killed_part_again_and_no_other(workload: Native, part: str) -> None:
    before = workload.pids()
    os.kill(before[part], signal.SIGKILL)
    assert _eventually(lambda: part not in workload.pids(), 10)
    assert f"{part} " in workload("status", check=False)
    said = workload("up")
    assert re.findall(r"starting (\S+)", said) == [part]
    after = workload.pids()
    assert {name: pid for name, pid in after.items() if name != part} == {
        name: pid for name, pid in before.items() if name != part
    }
    assert _eventually(lambda: _answers(workload))


def test_up_starts_a_part_with_other_settings_again_and_no_other(
    native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = native.pids()

    def changed(kubernetes: Path, group: str) -> list[Part]:
        found = all_parts(kubernetes, group)
        return [
            replace(part, arguments=[*part.arguments, "--v=1"]) if part.name == "kube-scheduler" else part
            for part in found
        ]

    monkeypatch.setattr(cluster, "all_parts", changed)
    cluster.Cluster(Layout(native.home / "native-cluster", _CACHE / "tools")).up()
    after = native.pids()
    assert {name for name in PART_NAMES if after[name] != before[name]} == {"kube-scheduler"}
    assert "starting kube-scheduler" in native("up"), "and back"


def test_up_after_the_loss_of_all_processes_brings_objects_and_pods_back(workload: Native) -> None:
    holder = int((workload.home / "native-cluster" / "holder").read_text().split()[0])
    os.kill(holder, signal.SIGKILL)
    assert _eventually(lambda: "down" in workload("status", check=False), 30)
    assert "the native cluster is down" in workload("exec", "--", "true", check=False)
    workload("up")
    assert _eventually(lambda: _answers(workload), 120)


def test_an_image_is_loaded_once_and_again_when_it_changes(native: Native, tmp_path: Path) -> None:
    busybox = programs.which("busybox")
    image = ProgramImage("example/test:1", {"bin/busybox": busybox}, ("/bin/busybox", "true"), {})
    write_archive(image, tmp_path / "image.tar")
    assert "loaded docker.io/example/test:1" in native("load-image", str(tmp_path / "image.tar"))
    assert "loaded" not in native("load-image", str(tmp_path / "image.tar"))
    changed = ProgramImage(image.name, {"busybox": busybox}, ("/busybox", "true"), {})
    write_archive(changed, tmp_path / "image.tar")
    assert "loaded docker.io/example/test:1" in native("load-image", str(tmp_path / "image.tar"))
    pod = _pod("loaded")
    pod["spec"] = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example/test:1"}]}
    native.apply(pod)
    native.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", "pod/loaded")


def test_an_image_of_a_registry_is_refused_at_once(native: Native) -> None:
    pod = _pod("foreign")
    pod["spec"] = {"containers": [{"name": "main", "image": "registry.example/foreign:1"}]}
    native.apply(pod)
    reason = "{.status.containerStatuses[0].state.waiting.reason}"
    assert _eventually(
        lambda: (
            native.kubectl("get", "pod", "foreign", f"-o=jsonpath={reason}")
            in {"ErrImagePull", "ImagePullBackOff"}
        ),
        30,
    )


def _host() -> dict[str, set[str]]:
    """What a cluster could leave behind on this machine, or change there while it runs."""
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    folders = [Path(name) for name in ("/run", "/var/lib", "/var/log", "/etc")]
    return {
        "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
        "links": {link["ifname"] for link in json.loads(links)},
        "rules": {line for line in rules.splitlines() if not line.startswith(("#", ":"))},
        "folders": {str(path) for folder in folders for path in folder.iterdir()},
    }


def _members(namespace: Path) -> list[str]:
    """Return the processes of a network namespace, those of its pods left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "ns" / "net").readlink() == namespace:
                found.append((folder / "comm").read_text().strip())
    return found


def _groups(prefix: str) -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").glob(f"**/{prefix}*") if path.is_dir()]


def _processes_of(groups: list[Path]) -> list[str]:
    found = []
    for group in groups:
        for tasks in group.rglob("cgroup.procs"):
            found += tasks.read_text().split()
    return found


def test_down_leaves_nothing(tmp_path: Path) -> None:
    before = _host()
    other = Native(tmp_path / "home")
    state = other.home / "native-cluster"
    try:
        other("up")
        group = json.loads((state / "config" / "kubelet.yaml").read_text())["cgroupRoot"].strip("/")
        pods = _processes_of(_groups(group))
        assert pods, "the pods are in a cgroup of the cluster's own"
        holder = (state / "holder").read_text().split()[0]
        namespace = Path(f"/proc/{holder}/ns/net").readlink()
        assert {"kubelet", "containerd", "etcd"} <= set(_members(namespace))
        assert _host() == before, "the host is untouched while the cluster runs"
    finally:
        other("down")
    assert _host() == before
    assert _groups(group) == []
    assert _members(namespace) == []
    assert not [pid for pid in pods if Path(f"/proc/{pid}").exists()]
    assert list(other.home.iterdir()) == []
    other("down")


def test_without_capabilities_check_says_so(native: Native) -> None:
    command = ["setpriv", "--bounding-set=-sys_admin", PROGRAM, "check"]
    done = subprocess.run(command, env=native.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the kernel refuses namespaces" in done.stdout
    assert "can run the native cluster" in native("check")


def test_without_root_check_says_so() -> None:
    done = subprocess.run(
        [shutil.which("python3", path="/usr/bin") or "python3", "-c", _CHECK_AS_NOBODY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "it needs root" in done.stdout


_CHECK_AS_NOBODY = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from hack.native_cluster.cluster import Cluster
from hack.native_cluster.paths import Layout
cluster = Cluster(Layout.from_environment())
os.seteuid(65534)
print(cluster.missing())
"""
