import json
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.install.conftest import ROOT, Machine, Rollouts

pytestmark = [pytest.mark.e2e, pytest.mark.kube_server]

SUCCESS = "Successfully installed ModelMesh Serving!"
EXAMPLE_KEY = "AKIAIOSFODNN7EXAMPLE"
OURS = "app.kubernetes.io/managed-by=modelmesh-controller"
KINDS = (
    "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,"
    "poddisruptionbudgets,jobs,persistentvolumeclaims,leases"
)
CLUSTER_KINDS = (
    "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,"
    "validatingwebhookconfigurations,customresourcedefinitions"
)


def namespace_for(machine: Machine, name: str) -> str:
    machine.must("kubectl", "create", "namespace", name)
    return name


def entry(machine: Machine, namespace: str, secret: str, key: str) -> str:
    """One entry of a Secret as text."""
    template = f"{{{{index .data {json.dumps(key)} | base64decode}}}}"
    command = ("get", "secret", secret, "-n", namespace, "-o", f"go-template={template}")
    return machine.must("kubectl", *command)


def test_it_installs_changes_nothing_when_repeated_and_leaves_nothing(
    machine: Machine, rollouts: Callable[[], Rollouts]
) -> None:
    namespace = namespace_for(machine, "whole")
    user = namespace_for(machine, "user-of-whole")
    install = ("scripts/install.sh", "--namespace", namespace, "--quickstart", "-u", f"{user} missing")
    with rollouts():
        done = machine.run(*install)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == SUCCESS
        assert "example credentials" in done.stderr
        assert "namespace missing does not exist and is skipped" in done.stderr

        assert "triton-2.x" in machine.must("kubectl", "get", "clusterservingruntimes", "-o", "name")
        # Without -n: the script has set the context's namespace, as the tutorial takes for granted.
        assert "deployment.apps/minio" in machine.must("kubectl", "get", "deployments", "-o", "name")
        subject = machine.must(
            "kubectl", "get", "clusterrolebinding", "modelmesh-controller-rolebinding", "-o", "json"
        )
        assert json.loads(subject)["subjects"][0]["namespace"] == namespace
        connection = json.loads(entry(machine, namespace, "model-serving-etcd", "etcd_connection"))
        assert connection["endpoints"] == f"http://etcd.{namespace}:2379"
        storage = json.loads(entry(machine, user, "storage-config", "localMinIO"))
        assert storage["endpoint_url"] == f"http://minio.{namespace}:9000"
        labels = json.loads(machine.must("kubectl", "get", "namespace", user, "-o", "json"))
        assert labels["metadata"]["labels"]["modelmesh-enabled"] == "true"

        again = machine.run(*install)
        assert again.returncode == 0, again.stderr
        assert again.stdout.splitlines()[-1] == SUCCESS
        assert not re.findall(r".* created$|deployment\.apps.*configured$", again.stdout, re.MULTILINE)

    removed = machine.run("scripts/delete.sh", "--namespace", namespace, "-u", user)
    assert removed.returncode == 0, removed.stderr
    assert machine.must("kubectl", "get", CLUSTER_KINDS, "-l", OURS, "-o", "name") == ""
    for each in (namespace, user):
        left = machine.must("kubectl", "get", KINDS, "-n", each, "-o", "name").split()
        assert set(left) == {"configmap/kube-root-ca.crt", "serviceaccount/default"} & set(left)
    assert "modelmesh-enabled" not in machine.must("kubectl", "get", "namespace", user, "--show-labels")


def kserve_with_definition(machine: Machine, name: str) -> str:
    """Has the cluster look as if KServe were there, and had brought a definition."""
    kserve = namespace_for(machine, "kserve")
    command = ("kubectl", "create", "deployment", "kserve-controller-manager", "--image=x:1", "-n", kserve)
    machine.must(*command)
    machine.must("kubectl", "create", "-f", f"config/crd/serving.kserve.io_{name.partition('.')[0]}.yaml")
    machine.must("kubectl", "annotate", "crd", name, "brought-by=kserve")
    return kserve


@pytest.fixture
def own(machine: Machine) -> Iterator[str]:
    """A namespace for an installation of namespace scope, which is removed at the end."""
    namespace = namespace_for(machine, f"own-{secrets.token_hex(3)}")
    yield namespace
    machine.must("hack/delete.sh", "-n", namespace)


def test_a_namespace_of_its_own_with_credentials_of_its_own(
    machine: Machine, rollouts: Callable[[], Rollouts], own: str
) -> None:
    install = ("hack/install.sh", "-n", own, "--namespace-scope-mode", "--quickstart")
    kserve = kserve_with_definition(machine, "inferenceservices.serving.kserve.io")
    with rollouts():
        machine.must(*install, "--generate-credentials", "--modelmesh-serving-image", "host:5000/c@sha256:1")
        generated = entry(machine, own, "minio-credentials", "access-key")
        assert re.fullmatch("[A-Za-z0-9]{20}", generated)
        assert entry(machine, own, "storage-config", "localMinIO").count(generated) == 1
        image = "{.spec.template.spec.containers[0].image}"
        command = ("kubectl", "get", "deployment", "modelmesh-controller", "-o", f"jsonpath={image}")
        assert machine.must(*command) == "host:5000/c@sha256:1"

        # Forgetting the flag later does not bring the known pair back, and other storages stay.
        patch = json.dumps({"stringData": {"mine": "{}"}})
        machine.must("kubectl", "patch", "secret", "storage-config", "-p", patch)
        done = machine.run(*install)
    assert done.returncode == 0, done.stderr
    assert entry(machine, own, "minio-credentials", "access-key") == generated
    assert EXAMPLE_KEY not in entry(machine, own, "storage-config", "localMinIO")
    assert entry(machine, own, "storage-config", "mine") == "{}"
    assert machine.must("kubectl", "get", "clusterroles", "-l", OURS, "-o", "name") == ""
    assert "clusterservingruntimes" not in machine.must("kubectl", "get", "crd", "-o", "name")
    assert "triton-2.x" in machine.must("kubectl", "get", "servingruntimes", "-o", "name")

    # What KServe has brought stays as it was.
    definition = machine.must("kubectl", "get", "crd", "inferenceservices.serving.kserve.io", "-o", "json")
    assert json.loads(definition)["metadata"]["annotations"]["brought-by"] == "kserve"
    assert OURS.partition("=")[0] not in json.loads(definition)["metadata"].get("labels", {})

    # Another controller needs the definitions, and the user his storage.
    other = namespace_for(machine, "other")
    machine.must("kubectl", "create", "deployment", "elsewhere", "--image=x:1", "-n", other)
    label = ("label", "deployment", "elsewhere", "control-plane=modelmesh-controller", "-n", other)
    machine.must("kubectl", *label)
    removed = machine.must("hack/delete.sh", "-n", own)
    machine.must("kubectl", "delete", "namespace", other, "--wait=false")
    machine.must("kubectl", "delete", "deployment", "elsewhere", "-n", other)
    machine.must("kubectl", "delete", "deployment", "kserve-controller-manager", "-n", kserve)
    assert "stay, for the controller in namespace other and KServe" in removed
    assert "keeps storages of yours: mine" in removed
    assert "inferenceservices" in machine.must("kubectl", "get", "crd", "-o", "name")
    assert machine.must("kubectl", "get", "servingruntimes", "-n", own, "-o", "name") == ""
    machine.must("kubectl", "delete", "crd", "inferenceservices.serving.kserve.io")
    machine.must("kubectl", "delete", "secret", "storage-config", "-n", own)


def _pod(namespace: str) -> dict[str, Any]:
    container = {"name": "etcd", "image": "etcd:1"}
    metadata = {"name": "etcd-stuck", "namespace": namespace, "labels": {"app": "etcd"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def _warning(namespace: str) -> dict[str, Any]:
    pod = {"kind": "Pod", "name": "etcd-stuck", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": namespace},
        "involvedObject": pod,
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": "0/1 nodes are available: 1 Insufficient cpu.",
    }


def test_what_is_stuck_is_shown_and_a_second_run_goes_on(
    machine: Machine, rollouts: Callable[[], Rollouts], own: str, tmp_path: Path
) -> None:
    stuck = tmp_path / "stuck.json"
    stuck.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [_pod(own), _warning(own)]}))
    machine.must("kubectl", "create", "-f", str(stuck))
    archive = tmp_path / "config.tgz"
    machine.must("tar", "-czf", str(archive), "-C", str(ROOT), "config")
    install = ("hack/install.sh", "-n", own, "--namespace-scope-mode", "--quickstart", "-p", str(archive))
    done = machine.run(*install, "--timeout", "1")
    assert done.returncode == 10
    assert "deployment/etcd: 0 of 1 pods available" in done.stdout
    assert "etcd-stuck" in done.stderr
    assert "Insufficient cpu" in done.stderr
    assert "ERROR: deployment/etcd is not ready after 1 s" in done.stderr
    machine.must("kubectl", "delete", "pod", "etcd-stuck", "-n", own)
    with rollouts():
        assert machine.must(*install).splitlines()[-1] == SUCCESS


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        ((), "--namespace is missing", "install.sh --namespace modelmesh-serving"),
        (("--namespace",), "--namespace needs a value", ""),
        (("--namespace", "nowhere"), "namespace nowhere does not exist", "kubectl create namespace nowhere"),
        (("-n", "x", "--quick"), "unknown option: --quick", "--help"),
        (("-n", "x", "--timeout", "soon"), "--timeout is 'soon'", ""),
        (("-n", "x", "--namespace-scope-mode", "-u", "a"), "needs cluster scope", ""),
        (("-n", "x", "--generate-credentials"), "--quickstart", ""),
        (("-n", "default", "-p", "docs"), "docs is not a folder of manifests", "config/"),
        (("-n", "default", "-p", "missing.tgz"), "missing.tgz does not exist", ""),
        (("-n", "default"), "no Secret model-serving-etcd", "--quickstart"),
        (("-n", "default", "--enable-cert-manager"), "cert-manager is not in the cluster", "self-signed"),
    ],
)
def test_a_mistake_ends_it_with_what_to_do(
    machine: Machine, arguments: tuple[str, ...], problem: str, remedy: str
) -> None:
    done = machine.run("hack/install.sh", *arguments)
    assert done.returncode == 10
    assert problem in done.stderr
    assert remedy in done.stderr
    assert SUCCESS not in done.stdout


def test_a_missing_right_is_not_taken_for_a_missing_object(machine: Machine, tmp_path: Path) -> None:
    kubeconfig = json.loads(Path(machine.environment["KUBECONFIG"]).read_text())
    kubeconfig["users"][0]["user"]["as"] = "nobody"
    (tmp_path / "nobody").write_text(json.dumps(kubeconfig))
    done = machine.run("hack/install.sh", "-n", "default", KUBECONFIG=str(tmp_path / "nobody"))
    assert done.returncode == 10
    assert 'User "nobody" cannot get resource "namespaces"' in done.stderr
    assert "does not exist" not in done.stderr


def test_help_lists_the_flags_of_the_original(machine: Machine) -> None:
    done = machine.run("hack/install.sh", "--help")
    assert done.returncode == 2
    flags = (
        "--namespace --install-config-path --delete --user-namespaces --quickstart --fvt --dev-mode-logging"
    )
    flags += " --namespace-scope-mode --modelmesh-serving-image --enable-self-signed-ca --help"
    assert [flag for flag in flags.split() if flag not in done.stderr] == []
    assert machine.run("hack/setup_user_namespaces.sh", "--help").returncode == 1


def test_a_missing_kubectl_or_cluster_is_named(machine: Machine, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    for program in ("bash", "dirname", "readlink"):
        (empty / program).symlink_to(Path("/bin") / program)
    done = machine.run("hack/install.sh", "-n", "x", PATH=str(empty))
    assert done.returncode == 10
    assert "kubectl is missing" in done.stderr
    assert "https://kubernetes.io/docs/tasks/tools" in done.stderr

    done = machine.run("hack/install.sh", "-n", "x", KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 10
    assert "API server does not answer" in done.stderr
