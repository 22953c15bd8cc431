"""The webhook: its verdicts, over HTTPS, and a certificate that changes."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from controller import webhook
from controller.webhook import PATH, WebhookError, review
from tests.controller import rule_cases
from tests.controller.rule_cases import Case

HOST = "127.0.0.1"


def _review(obj: dict[str, Any], operation: str = "CREATE") -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u", "operation": operation, "object": obj},
    }


@pytest.mark.parametrize("case", [*rule_cases.RUNTIMES, *rule_cases.AUTOSCALING], ids=lambda case: case.id)
def test_its_verdicts_are_those_of_the_rules(case: Case) -> None:
    response = review(_review(case.object))["response"]
    assert response["uid"] == "u"
    assert response["allowed"] is not bool(case.messages)
    for message in case.messages:
        assert message in response["status"]["message"]


def test_an_object_of_the_wrong_shape_is_refused_by_field() -> None:
    response = review(_review({"spec": {"containers": 1}}))["response"]
    assert response["allowed"] is False
    assert response["status"]["code"] == 400
    assert response["status"]["message"].startswith("spec.containers: ")


def test_a_deletion_is_allowed() -> None:
    assert review(_review({}, "DELETE"))["response"]["allowed"] is True


def test_an_object_older_than_the_rules_can_lose_a_finalizer_and_not_change_otherwise() -> None:
    broken = rule_cases.runtime(grpcEndpoint=None)
    freed = broken | {"metadata": broken["metadata"] | {"finalizers": []}}
    asked = _review(freed, "UPDATE")
    asked["request"]["oldObject"] = broken
    assert review(asked)["response"]["allowed"] is True
    annotated = broken["metadata"] | {"annotations": {"serving.kserve.io/metrics": "cpu"}}
    for changed in (rule_cases.runtime(grpcEndpoint=None, replicas=3), broken | {"metadata": annotated}):
        asked["request"]["object"] = changed
        assert review(asked)["response"]["allowed"] is False


def _write(folder: Path, authority: trustme.CA) -> None:
    pair = authority.issue_cert(HOST)
    folder.mkdir(exist_ok=True)
    pair.private_key_pem.write_to_path(folder / "tls.key")
    (folder / "tls.crt").write_bytes(b"".join(part.bytes() for part in pair.cert_chain_pems))


def _trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def _ask(port: int, authority: trustme.CA, body: Any) -> Any:
    connector = aiohttp.TCPConnector(ssl=_trusting(authority))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"https://{HOST}:{port}{PATH}", json=body) as response,
    ):
        return await response.json() if response.status == 200 else response.status


async def test_it_answers_over_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    _write(tmp_path, authority)
    async with webhook.serving(tmp_path, 0) as port:
        assert port is not None
        answer = await _ask(port, authority, _review(rule_cases.runtime(grpcEndpoint=None)))
        assert answer["response"]["allowed"] is False
        assert answer["response"]["status"]["message"].startswith("spec.grpcEndpoint: ")
        assert await _ask(port, authority, ["no review"]) == 400


async def test_a_changed_certificate_is_used_and_a_broken_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_LOOK_S", 0.01)
    first, second = trustme.CA(), trustme.CA()
    _write(tmp_path, first)
    good = _review(rule_cases.runtime())
    async with webhook.serving(tmp_path, 0) as port:
        assert port is not None
        (tmp_path / "tls.crt").write_text("broken")
        assert (await _ask(port, first, good))["response"]["allowed"] is True
        _write(tmp_path, second)
        async with asyncio.timeout(30):
            while True:
                try:
                    answer = await _ask(port, second, good)
                    break
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.01)
        assert answer["response"]["allowed"] is True


async def test_without_a_certificate_it_is_not_served(tmp_path: Path) -> None:
    async with webhook.serving(tmp_path) as port:
        assert port is None


async def test_a_certificate_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("a")
    (tmp_path / "tls.key").write_text("b")
    with pytest.raises(WebhookError, match="cannot be used"):
        async with webhook.serving(tmp_path, 0):
            pass
