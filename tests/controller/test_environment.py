from pathlib import Path

import pytest

from controller.environment import duration, parse_flags, read_environment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "15s!", "1d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


def test_flags_have_the_originals_defaults() -> None:
    flags = parse_flags([])
    assert flags.metrics_addr == ":8080"
    assert flags.health_probe_bind_address == ":8081"
    assert not flags.enable_leader_election
    assert flags.leader_elect_type == "lease"
    assert flags.leader_elect_lease_duration_s == 15


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_flags_take_one_dash_or_two(dashes: str) -> None:
    flags = parse_flags(
        [
            f"{dashes}metrics-addr=127.0.0.1:1",
            f"{dashes}health-probe-bind-address",
            "127.0.0.1:2",
            f"{dashes}enable-leader-election",
            f"{dashes}leader-elect-retry-period-sec=1m",
        ],
    )
    assert flags.metrics_addr == "127.0.0.1:1"
    assert flags.health_probe_bind_address == "127.0.0.1:2"
    assert flags.enable_leader_election
    assert flags.leader_elect_retry_period_s == 60


def test_booleans_may_have_a_value() -> None:
    assert not parse_flags(["--enable-leader-election=false"]).enable_leader_election


@pytest.mark.parametrize(
    "argv", [["--leader-elect-type=zk"], ["--nobody"], ["--enable-leader-election=maybe"]]
)
def test_wrong_flags_end_the_process(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse_flags(argv)
    assert error.value.code == 2


def test_environment_defaults() -> None:
    environment = read_environment({})
    assert environment.namespace == "model-serving"
    assert environment.deployment == "modelmesh-controller"
    assert environment.etcd_secret == "model-serving-etcd"
    assert not environment.namespace_scope
    assert environment.inference_services is None
    assert environment.kubeconfig is None


def test_environment_values() -> None:
    environment = read_environment(
        {
            "NAMESPACE": "ns",
            "POD_NAME": "my-controller-5d8f-abcde",
            "ETCD_SECRET_NAME": "etcd",
            "NAMESPACE_SCOPE": "true",
            "ENABLE_ISVC_WATCH": "false",
            "ENABLE_CSR_WATCH": "true",
            "KUBECONFIG": "/k",
        },
    )
    assert environment.namespace == "ns"
    assert environment.deployment == "my-controller"
    assert environment.namespace_scope
    assert environment.inference_services is False
    assert environment.cluster_runtimes is True
    assert environment.kubeconfig == Path("/k")


def test_the_deployments_name_may_be_given() -> None:
    variables = {"POD_NAME": "a-b-c", "CONTROLLER_DEPLOYMENT": "mine"}
    assert read_environment(variables).deployment == "mine"
