from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import local.profiles
from api.core import Container, Pod
from api.meta import JSON
from local.containers import Facts, port_number, translate, written_ports
from local.errors import PodSpecError
from local.processes import Command
from local.profiles import Profile, Profiles

FOLDER = Path("/pods/1/work/server")
PROFILE = Profile(
    images=("server",),
    commands={"": ("{tool}",)},
    arguments=("start", "$(MODELS)"),
    defaults={"GRPC_PORT": "8001", "MODELS": "/models"},
    overrides={"HOST": "127.0.0.1", "SHARED": "grpc=127.0.0.1:{grpc_port}"},
    ports=frozenset({"GRPC_PORT", "ENDPOINT", "--listen"}),
)


def command_of(
    container: dict,
    *,
    ports: dict[int, int] | None = None,
    volumes: dict[str, Path] | None = None,
    config: dict[tuple[str, str], dict[str, bytes]] | None = None,
    others: Sequence[JSON] = (),
) -> Command:
    parsed = Container.parse({"name": "server", "image": "server", **container})
    pod = Pod.parse(
        {
            "metadata": {"name": "pod-1", "namespace": "ns", "labels": {"app": "x"}},
            "spec": {"containers": [parsed.dump(), *others]},
            "status": {"podIP": "127.0.0.1", "hostIP": "127.0.0.1"},
        },
    )
    facts = Facts(
        pod=pod,
        ports=ports or {},
        volumes=volumes or {},
        names={"tool": "/bin/tool", "grpc_port": "8033"},
        base={"PATH": "/bin"},
        config=config or {},
    )
    return translate(parsed, PROFILE, PROFILE.commands[""], facts, FOLDER)


def environment_of(*env: dict, **facts: Any) -> dict[str, str]:
    return dict(command_of({"env": list(env)}, **facts).environment)


def test_the_program_and_its_arguments_come_from_the_profile() -> None:
    assert command_of({}).arguments == ["/bin/tool", "start", "/models"]


def test_arguments_of_the_container_replace_those_of_the_profile() -> None:
    assert command_of({"args": ["other"]}).arguments == ["/bin/tool", "other"]


def test_the_rest_of_the_containers_command_follows_the_program() -> None:
    container = {"command": ["/opt/server", "--flag"], "args": ["more"]}
    assert command_of(container).arguments == ["/bin/tool", "--flag", "more"]


def test_variables_of_the_container_win_over_defaults_and_lose_to_overrides() -> None:
    found = environment_of({"name": "MODELS", "value": "/other"}, {"name": "HOST", "value": "0.0.0.0"})
    assert found["MODELS"] == "/other"
    assert found["HOST"] == "127.0.0.1"
    assert found["PATH"] == "/bin"


def test_facts_of_the_cluster_are_filled_in() -> None:
    assert environment_of()["SHARED"] == "grpc=127.0.0.1:8033"


def test_earlier_variables_expand_in_later_ones_and_unknown_ones_stay() -> None:
    found = environment_of({"name": "A", "value": "1"}, {"name": "B", "value": "$(A) $$(A) $(NONE)"})
    assert found["B"] == "1 $(A) $(NONE)"


def test_ports_are_rewritten_where_the_profile_says_so_and_nowhere_else() -> None:
    found = environment_of(
        {"name": "ENDPOINT", "value": "port:8001"},
        {"name": "CAPACITY", "value": "8001"},
        ports={8001: 20001},
    )
    assert (found["GRPC_PORT"], found["ENDPOINT"], found["CAPACITY"]) == ("20001", "port:20001", "8001")


def test_ports_in_flags_are_rewritten_and_addresses_are_not() -> None:
    container = {"args": ["--listen=http://127.0.0.1:2379", "--other=2379"]}
    found = command_of(container, ports={2379: 20002, 127: 9}).arguments
    assert found[1:] == ["--listen=http://127.0.0.1:20002", "--other=2379"]


def test_paths_below_a_mount_are_rewritten_at_their_borders_only() -> None:
    volumes = {"models": Path("/v/models"), "config": Path("/v/config")}
    mounts = [{"name": "models", "mountPath": "/models"}, {"name": "config", "mountPath": "/models/config"}]
    env = [
        {"name": "A", "value": "/models/_store/"},
        {"name": "B", "value": "etcd:/models/config/file"},
        {"name": "C", "value": "/models-2/x"},
        {"name": "D", "value": "/data/models/x"},
    ]
    found = command_of({"env": env, "volumeMounts": mounts}, volumes=volumes).environment
    assert [found[name] for name in "ABCD"] == [
        "/v/models/_store/",
        "etcd:/v/config/file",
        "/models-2/x",
        "/data/models/x",
    ]


def test_a_sub_path_leads_into_the_volume() -> None:
    mounts = [{"name": "models", "mountPath": "/models", "subPath": "one"}]
    found = command_of({"volumeMounts": mounts}, volumes={"models": Path("/v/models")}).arguments
    assert found[-1] == "/v/models/one"


def test_fields_of_the_pod_become_variables() -> None:
    paths = {
        "NAME": "metadata.name",
        "NS": "metadata.namespace",
        "IP": "status.podIP",
        "HOSTIP": "status.hostIP",
        "APP": "metadata.labels['app']",
    }
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in paths.items()]
    found = environment_of(*env)
    assert [found[name] for name in paths] == ["pod-1", "ns", "127.0.0.1", "127.0.0.1", "x"]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "requests.memory", "containerName": "other"}, "1073741824"),
        ({"resource": "requests.memory", "containerName": "other", "divisor": "1Mi"}, "1024"),
        ({"resource": "limits.cpu", "containerName": "other"}, "2"),
        ({"resource": "limits.memory", "containerName": "other"}, "0"),
    ],
)
def test_resources_of_a_container_become_variables(reference: JSON, expected: Any) -> None:
    other = {"name": "other", "resources": {"requests": {"memory": "1Gi"}, "limits": {"cpu": "1500m"}}}
    variable = {"name": "M", "valueFrom": {"resourceFieldRef": reference}}
    assert environment_of(variable, others=[other])["M"] == expected


@pytest.mark.parametrize("before", ["", "unix:", "unix://"])
def test_the_path_of_a_socket_is_rewritten_in_every_form(before: str) -> None:
    mounts = [{"name": "socket", "mountPath": "/run/mm"}]
    env = [
        {"name": "ENDPOINT", "value": f"{before}/run/mm/grpc.sock"},
        {"name": "URL", "value": "http://run/mm/x"},
    ]
    found = command_of({"env": env, "volumeMounts": mounts}, volumes={"socket": Path("/v/s")}).environment
    assert found["ENDPOINT"] == f"{before}/v/s/grpc.sock"
    assert found["URL"] == "http://run/mm/x"


def test_an_amount_that_is_none_is_an_error_that_names_the_variable() -> None:
    other = {"name": "other", "resources": {"requests": {"memory": "much"}}}
    reference = {"resource": "requests.memory", "containerName": "other"}
    with pytest.raises(PodSpecError, match="variable M of container server: 'much'"):
        environment_of({"name": "M", "valueFrom": {"resourceFieldRef": reference}}, others=[other])


def test_entries_of_secrets_become_variables_and_a_missing_one_is_an_error() -> None:
    reference = {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    assert environment_of(reference, config={("Secret", "s"): {"k": b"v"}})["K"] == "v"
    with pytest.raises(PodSpecError, match=r"variable K of container server: Secret 's' with an entry 'k'"):
        environment_of(reference)
    reference["valueFrom"]["secretKeyRef"]["optional"] = True
    assert "K" not in environment_of(reference)


def test_the_ports_of_a_container_are_found_wherever_they_are_written() -> None:
    container = Container.parse(
        {
            "name": "server",
            "ports": [{"containerPort": 8033, "hostPort": 30000}],
            "env": [{"name": "ENDPOINT", "value": "port:8085"}],
            "args": ["--listen=127.0.0.1:2379"],
            "readinessProbe": {"httpGet": {"port": 8089}},
            "lifecycle": {"preStop": {"httpGet": {"port": 8090, "path": "/prestop"}}},
        },
    )
    found = dict(written_ports(container, PROFILE))
    assert found == {8033: 30000, 8001: None, 8085: None, 2379: None, 8089: None, 8090: None}


def test_a_named_port_is_looked_up_in_all_containers() -> None:
    containers = [
        Container.parse({"name": "a"}),
        Container.parse({"name": "b", "ports": [{"name": "http", "containerPort": 8008}]}),
    ]
    assert port_number(containers, "http") == 8008
    assert port_number(containers, 9) == 9
    with pytest.raises(PodSpecError, match="'grpc'"):
        port_number(containers, "grpc")


def test_an_adapter_finds_health_and_metrics_of_its_pod_on_real_ports() -> None:
    adapter = Container.parse(
        {
            "name": "mlserver-adapter",
            "image": "modelmesh/adapter:1",
            "command": ["/opt/app/mlserver-adapter"],
            "env": [{"name": "ADAPTER_METRICS_PORT", "value": "11881"}],
        }
    )
    server = Container.parse({"name": "mlserver", "image": "seldonio/mlserver:1"})
    profiles = Profiles.load(Path(local.profiles.__file__).parent)
    profile, program = profiles.find(adapter.image, adapter.command[0])
    beside, _ = profiles.find(server.image, "")
    written = {port for port, _ in written_ports(adapter, profile)}
    assert {8082, 11881} <= written
    assert 8082 in {port for port, _ in written_ports(server, beside)}
    pod = Pod.parse({"metadata": {"name": "p"}, "spec": {"containers": []}})
    facts = Facts(pod, {port: 20_000 + port for port in written}, {}, {}, {})
    found = translate(adapter, profile, program, facts, FOLDER).environment
    assert found["ADAPTER_METRICS_PORT"] == "31881"
    assert found["RUNTIME_METRICS_PORT"] == "28082"
