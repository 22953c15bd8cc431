"""Where models come from: HTTP with a redirect, claims of the storage Secret, and claims that models name."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from fvt import overlay
from fvt.objects import BUCKET, SKLEARN, XGBOOST, isvc, predictor
from fvt.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fvt.cluster import JSON, Cluster
    from fvt.inference import Inference
    from fvt.models import Bucket

FIRST, SECOND, THIRD = (f"models-pvc-{number}" for number in (1, 2, 3))
DEPLOYMENT = "modelmesh-serving-mlserver-1.x"
SITE = "fvt-site"
_PORT = 8080
_SITE_PROGRAM = f"""\
import http.server


class Site(http.server.SimpleHTTPRequestHandler):
    def do_HEAD(self):
        self.redirected(super().do_HEAD)

    def do_GET(self):
        self.redirected(super().do_GET)

    def redirected(self, answer):
        if self.path.startswith("/old/"):
            self.send_response(302)
            self.send_header("Location", "/" + self.path.removeprefix("/old/"))
            self.end_headers()
        else:
            answer()


http.server.ThreadingHTTPServer(("", {_PORT}), lambda *args: Site(*args, directory="/files")).serve_forever()
"""


@pytest.fixture(scope="module")
def site(installed: Cluster, models: Bucket) -> Iterator[str]:
    """The address of a web server in the cluster with an XGBoost model; it redirects what is below /old."""
    labels = {"app": SITE}
    image = next(
        container["image"]
        for pod in installed.items("pods", "modelmesh-service=modelmesh-serving")
        for container in pod["spec"]["containers"]
        if container["name"].endswith("-adapter")
    )
    content: JSON = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SITE},
        "data": {"site.py": _SITE_PROGRAM},
        "binaryData": {"model.json": b64encode(models.read(XGBOOST)).decode()},
    }
    pod: JSON = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": SITE, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "site",
                    "image": image,
                    "command": ["python3", "/files/site.py"],
                    "readinessProbe": {"httpGet": {"path": "/model.json", "port": _PORT}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "files", "mountPath": "/files"}],
                }
            ],
            "volumes": [{"name": "files", "configMap": {"name": SITE}}],
        },
    }
    service: JSON = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SITE},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": _PORT}]},
    }
    installed.apply(content, pod, service)
    wait(lambda: installed.ready_pods(f"app={SITE}"), "the web server")
    yield f"http://{SITE}.{installed.namespace}"
    installed.delete("pod,service,configmap", SITE)


@pytest.mark.parametrize("path", ["model.json", "old/model.json"], ids=["straight", "redirected"])
def test_a_model_comes_by_http(
    installed: Cluster,
    inference: Inference,
    name: str,
    site: str,
    needs: Callable[[str], None],
    path: str,
) -> None:
    needs("mlserver")
    installed.apply(isvc(name, "xgboost", uri=f"{site}/{path}", key=None))
    installed.wait_ready("isvc", name)
    assert inference.rest_row(name, [0.5] * 30).status_code == 200


def test_a_missing_page_is_told(
    installed: Cluster, name: str, site: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name, "xgboost", uri=f"{site}/nothing.json", key=None))
    failure = installed.wait_failure("isvc", name, "ModelLoadFailed")
    assert f"{site}/nothing.json" in failure["message"]


def test_a_model_is_named_by_its_s3_uri(
    installed: Cluster, inference: Inference, name: str, needs: Callable[[str], None]
) -> None:
    needs("mlserver")
    installed.apply(isvc(name, uri=f"s3://{BUCKET}/{SKLEARN}"))
    installed.wait_ready("isvc", name)
    assert inference.digit(name) == 8


@pytest.fixture
def claims(installed: Cluster, needs: Callable[[str], None]) -> Iterator[Cluster]:
    """The installation with the claims of `install.sh --fvt`; entries and settings are put back."""
    needs("mlserver")
    if installed.find("pvc", FIRST) is None:
        pytest.skip(f"claim {FIRST} is not there: install with --fvt")
    yield installed
    secret = installed.get("secret", "storage-config")
    added = {key: None for key in secret["data"] if key.startswith("pvc-")}
    if added:
        installed.patch("secret", "storage-config", {"data": added})
    overlay.configure(installed)
    wait(lambda: not _mounted(installed), "the pods to mount no claim")
    overlay.wait_settled(installed)


def _mounted(cluster: Cluster) -> list[str]:
    volumes = cluster.get("deployment", DEPLOYMENT)["spec"]["template"]["spec"]["volumes"]
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes
        if "persistentVolumeClaim" in volume
    ]


def _name_in_secret(cluster: Cluster, *names: str) -> None:
    entries = {f"pvc-{name}": f'{{"type": "pvc", "name": "{name}"}}' for name in names}
    cluster.patch("secret", "storage-config", {"stringData": entries})
    wait(lambda: _mounted(cluster) == list(names), f"the pods to mount {names}")


@pytest.mark.long
def test_models_come_from_the_claims_that_the_secret_names(
    claims: Cluster, inference: Inference, name: str
) -> None:
    by_key = f"{name}-key"
    unknown = f"{name}-unknown"
    _name_in_secret(claims, FIRST, SECOND)
    overlay.wait_settled(claims)
    try:
        claims.apply(
            isvc(name, uri=f"pvc://{FIRST}/{SKLEARN}", key=None),
            predictor(by_key, path=SKLEARN, key=f"pvc-{SECOND}"),
            isvc(unknown, uri=f"pvc://{THIRD}/{SKLEARN}", key=None),
        )
        claims.wait_ready("isvc", name)
        claims.wait_ready("predictor", by_key)
        assert inference.digit(name) == inference.digit(by_key) == 8
        failure = claims.wait_failure("isvc", unknown, "ModelLoadFailed")
        assert THIRD in failure["message"]
    finally:
        claims.delete("isvc", unknown)
        claims.delete("predictor", by_key)


@pytest.mark.long
def test_a_model_may_name_any_claim_where_that_is_allowed(
    claims: Cluster, inference: Inference, name: str
) -> None:
    missing = f"{name}-missing"
    overlay.configure(claims, allowAnyPVC=True)
    try:
        claims.apply(isvc(name, uri=f"pvc://{THIRD}/{SKLEARN}", key=None))
        wait(lambda: _mounted(claims) == [THIRD], f"the pods to mount {THIRD}")
        overlay.wait_settled(claims)
        claims.wait_ready("isvc", name)
        assert inference.digit(name) == 8
        claims.apply(isvc(missing, uri=f"pvc://no-such-claim/{SKLEARN}", key=None))
        failure = claims.wait_failure("isvc", missing, "ModelLoadFailed")
        assert "no-such-claim" in failure["message"]
        # The pods survive: a claim that is not there is not mounted.
        assert _mounted(claims) == [THIRD]
        assert inference.digit(name) == 8
    finally:
        claims.delete("isvc", missing)
        claims.delete("isvc", name)
