from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from api.core import CONFIG_MAP, CRD
from controller.runtime.errors import Forbidden
from controller.runtime.testing import Binaries, TestEnvironmentError
from controller.runtime.testing.process import Process

if TYPE_CHECKING:
    from pathlib import Path

    from controller.runtime import HttpClient
    from controller.runtime.testing import KubeApiServer


@pytest.mark.e2e
async def test_definitions_of_the_project_are_installed(kube_client: HttpClient) -> None:
    names = {item["spec"]["names"]["kind"] for item in (await kube_client.list(CRD)).items}
    assert {"InferenceService", "Predictor", "ServingRuntime", "ClusterServingRuntime"} <= names


@pytest.mark.e2e
async def test_a_user_may_do_what_rbac_says_and_no_more(
    kube_server: KubeApiServer, kube_namespace: str
) -> None:
    async with await kube_server.client(kube_server.kubeconfig_for("nobody-special")) as client:
        with pytest.raises(Forbidden, match='User "nobody-special" cannot list resource "configmaps"'):
            await client.list(CONFIG_MAP, kube_namespace)


async def test_a_program_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    process = Process(["/bin/sh", "-c", "echo the port is taken; exit 3"], tmp_path / "log")
    with pytest.raises(TestEnvironmentError, match=r"ended with status 3(.|\n)*the port is taken"):
        await process.start(never)
    assert process.pid is None


def test_missing_binaries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(TestEnvironmentError, match="etcd is not a program there"):
        Binaries.from_environment()
    monkeypatch.delenv("KUBEBUILDER_ASSETS")
    with pytest.raises(TestEnvironmentError, match="KUBEBUILDER_ASSETS is not set"):
        Binaries.from_environment()
