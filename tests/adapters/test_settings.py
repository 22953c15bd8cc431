"""Environment variables: defaults, forms that are accepted, and one readable message for all that are not."""

from pathlib import Path

import pytest

from adapters.errors import ConfigurationError
from adapters.sdk import Settings


def read(**variables: str) -> Settings:
    return Settings.from_environment(
        {"CONTAINER_MEM_REQ_BYTES": "1073741824"} | variables, size_multiplier=1.25, server_port=8001
    )


def test_defaults() -> None:
    settings = read()
    assert settings.capacity == (1024 - 256) << 20
    assert (settings.bind_address, settings.port, settings.server_port) == ("127.0.0.1", 8085, 8001)
    assert settings.data_endpoint == "port:8001"
    assert (settings.loading_concurrency, settings.load_timeout_ms) == (1, 30_000)
    assert (settings.default_model_size, settings.size_multiplier) == (1_000_000, 1.25)
    assert (settings.server_version, settings.per_model_concurrency) == ("v1", 0)
    assert (settings.root, settings.puller.secret) == (Path("/models"), Path("/storage-config"))
    assert not settings.embedded_puller


def test_what_the_controller_sets_is_read() -> None:
    settings = read(
        ADAPTER_PORT="9085",
        RUNTIME_PORT="9001",
        RUNTIME_DATA_ENDPOINT="unix:/socket",
        MEM_BUFFER_BYTES="134217728",
        LOADTIME_TIMEOUT="90000",
        LOADING_CONCURRENCY="2",
        LIMIT_PER_MODEL_CONCURRENCY="3",
        RUNTIME_VERSION="",
        USE_EMBEDDED_PULLER="true",
        MODELSIZE_MULTIPLIER="2",
        ROOT_MODEL_DIR="/elsewhere",
    )
    assert settings.capacity == (1024 - 128) << 20
    assert (settings.port, settings.server_port, settings.data_endpoint) == (9085, 9001, "unix:/socket")
    assert (settings.loading_concurrency, settings.load_timeout_ms, settings.per_model_concurrency) == (
        2,
        90_000,
        3,
    )
    assert (settings.server_version, settings.embedded_puller, settings.size_multiplier) == ("", True, 2.0)
    assert settings.root == Path("/elsewhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONTAINER_MEM_REQ_BYTES", "-1"),
        ("CONTAINER_MEM_REQ_BYTES", "0"),
        ("CONTAINER_MEM_REQ_BYTES", "1Gi"),
        ("MEM_BUFFER_BYTES", "1073741824"),
        ("ADAPTER_PORT", ""),
        ("RUNTIME_PORT", "70000"),
        ("LOADING_CONCURRENCY", "0"),
        ("LOADTIME_TIMEOUT", "soon"),
        ("LOADTIME_TIMEOUT", str(2**32)),
        ("LIMIT_PER_MODEL_CONCURRENCY", str(2**32)),
        ("DEFAULT_MODELSIZE", "0"),
        ("DEFAULT_MODELSIZE", str(2**64)),
        ("MODELSIZE_MULTIPLIER", "0"),
        ("MODELSIZE_MULTIPLIER", "nan"),
        ("USE_EMBEDDED_PULLER", "yes"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        read(**{name: value})


def test_the_memory_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match="CONTAINER_MEM_REQ_BYTES is not set"):
        Settings.from_environment({}, size_multiplier=1.25, server_port=8001)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"ADAPTER_PORT.*LOADTIME_TIMEOUT"):
        read(ADAPTER_PORT="x", LOADTIME_TIMEOUT="y")
