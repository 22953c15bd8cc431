"""Settings have the original's names; a wrong one is named."""

from pathlib import Path

import pytest

from mesh.config import Config, InfoMetric, Metrics, read_config
from mesh.errors import ConfigError
from mesh.metrics import PolicyMetrics

LEAST = {"MM_SERVICE_NAME": "modelmesh-serving", "KV_STORE": "etcd:/etc/etcd", "WKUBE_POD_NAME": "pod"}


def read(**values: str) -> Config:
    return read_config(LEAST | values)


def test_defaults() -> None:
    config = read()
    assert (config.grpc_port, config.rest_port, config.peer_port) == (0, 8008, 8080)
    assert (config.probe_port, config.prestop_port, config.metrics) == (8089, 8090, None)
    assert config.serving_target == config.runtime_target == "tcp:127.0.0.1:8085"
    assert (config.max_message_bytes, config.kv_prefix, config.shutdown_seconds) == (16_777_216, "mm", 30)


def test_what_the_controller_sets() -> None:
    config = read(
        WKUBE_POD_NAME="modelmesh-serving-mlserver-1.x-7d9f8b6c5d-x2k4p",
        WKUBE_POD_IPADDR="10.0.0.7",
        MM_SVC_GRPC_PORT="8033",
        INTERNAL_GRPC_PORT="8085",
        INTERNAL_SERVING_GRPC_SOCKET_PATH="/models/server.sock",
        MM_METRICS="prometheus:port=2112;scheme=http",
        MM_LABELS="rt:mlserver-1.x, mt:sklearn",
        MM_TYPE_CONSTRAINTS_PATH="/etc/watson/mmesh/config/type_constraints",
        MM_SHARED_LISTEN="grpc=127.0.0.1:8033,http=127.0.0.1:8008",
        SHUTDOWN_TIMEOUT_MS="90000",
        ZOOKEEPER="zk:2181",
    )
    assert config.instance_id == "8b6c5d-x2k4p"
    assert config.peer_address == "10.0.0.7:8080"
    assert (config.runtime_target, config.serving_target) == (
        "tcp:127.0.0.1:8085",
        "unix:/models/server.sock",
    )
    assert config.metrics == Metrics(2112, https=False)
    assert config.labels == ("mt:sklearn", "rt:mlserver-1.x")
    assert config.type_constraints_path == Path("/etc/watson/mmesh/config/type_constraints")
    assert (config.shared_grpc, config.shared_rest) == (("127.0.0.1:8033",), ("127.0.0.1:8008",))
    assert config.shutdown_seconds == 90
    assert (config.ignored, config.unsupported) == (("ZOOKEEPER",), ())


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"MM_SERVICE_NAME": ""}, "MM_SERVICE_NAME"),
        ({"KV_STORE": ""}, "KV_STORE"),
        ({"WKUBE_POD_NAME": "a,b"}, "WKUBE_POD_NAME"),
        ({"MM_SVC_GRPC_PORT": "eighty"}, "MM_SVC_GRPC_PORT"),
        ({"MM_PEER_PORT": "70000"}, "MM_PEER_PORT"),
        ({"MM_SVC_GRPC_MAX_MSG_SIZE": "1"}, "MM_SVC_GRPC_MAX_MSG_SIZE"),
        ({"INTERNAL_GRPC_PORT": "1", "INTERNAL_GRPC_SOCKET_PATH": "/s"}, "INTERNAL_GRPC_PORT"),
        ({"MM_DATAPLANE_CONFIG": "{}", "MM_DATAPLANE_CONFIG_PATH": "/f"}, "MM_DATAPLANE_CONFIG"),
        ({"MM_SHARED_LISTEN": "8033"}, "MM_SHARED_LISTEN"),
        ({"MM_METRICS": "prometheus:port=x"}, "MM_METRICS"),
        ({"MM_KVSTORE_PREFIX": "a/b"}, "MM_KVSTORE_PREFIX"),
        ({"MM_TLS_PRIVATE_KEY_PATH": "/key"}, "MM_TLS_PRIVATE_KEY_PATH"),
        ({"MM_SVC_GRPC_PRIVATE_KEY_PATH": "/key"}, "MM_SVC_GRPC_PRIVATE_KEY_PATH"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read(**values)


def test_the_probe_port_can_be_turned_off() -> None:
    assert read(MM_PROBE_PORT="NONE").probe_port == 0


def test_settings_of_the_jvm_zookeeper_and_statsd_are_ignored_and_said_so() -> None:
    config = read(
        ZOOKEEPER="zk:2181",
        HEAP_SIZE_MB="640",
        CUSTOM_JVM_ARGS="-Dx",
        KV_READ_ONLY="false",
        MM_METRICS="statsd:port=8126",
    )
    assert config.ignored == ("ZOOKEEPER", "HEAP_SIZE_MB", "CUSTOM_JVM_ARGS", "MM_METRICS")
    assert config.metrics is None


def test_settings_without_effect_yet_are_said_so() -> None:
    assert read(MM_LOG_EACH_INVOKE="true").unsupported == ("MM_LOG_EACH_INVOKE",)


def test_old_names_of_settings_count() -> None:
    config = read(
        MM_SERVICE_NAME="",
        TAS_SERVICE_NAME="old",
        TAS_SVC_GRPC_PORT="8033",
        MM_AUTO_REGISTER_MODEL="[]",
        MM_AUTO_REGISTER_MODEL_PATH="/models.json",
    )
    assert (config.service, config.grpc_port) == ("old", 8033)
    assert (config.static_models, config.static_models_path) == ("[]", Path("/models.json"))


def test_failures_expire_after_the_given_time_which_cannot_be_nothing() -> None:
    assert read().failure_expiry_ms == 900_000
    config = read(MM_LOAD_FAILURE_EXPIRY_TIME_MS="2000")
    assert (config.failure_expiry_ms, config.unsupported) == (2_000, ())
    with pytest.raises(ConfigError, match="MM_LOAD_FAILURE_EXPIRY_TIME_MS is 0: it must be at least 1000"):
        read(MM_LOAD_FAILURE_EXPIRY_TIME_MS="0")


def test_a_metric_of_the_user_s_takes_its_labels_from_the_environment() -> None:
    config = read(MM_INFO_METRICS="app_info;version=APP_VERSION, zone=ZONE", APP_VERSION="7", ZONE="a")
    assert config.info_metric == InfoMetric("app_info", {"version": "7", "zone": "a"})
    assert 'app_info{version="7",zone="a"} 1.0' in PolicyMetrics(config.info_metric).text()
    assert "app_info 1.0" in PolicyMetrics(read(MM_INFO_METRICS="app_info").info_metric).text()
    assert read().info_metric is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("app_info;version=APP_VERSION", "'APP_VERSION', which is not set"),
        ("app-info", "name;label=VARIABLE"),
        ("app_info;version", "which is not set"),
        ("app_info;a=H,b=H,c=H,d=H,e=H", "at most 4 labels"),
    ],
)
def test_a_metric_of_the_user_s_that_cannot_be_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read(MM_INFO_METRICS=text, H="h")


def test_a_metric_of_the_user_s_is_none_of_ours() -> None:
    config = read(MM_INFO_METRICS="modelmesh_instances")
    with pytest.raises(ConfigError, match="modelmesh_instances"):
        PolicyMetrics(config.info_metric)
