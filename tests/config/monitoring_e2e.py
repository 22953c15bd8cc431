"""A real Prometheus scrapes a real mesh, and makes sense of our rules and of every query of the dashboard.

Run by `make test-monitoring`, which says so where Prometheus is not installed.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.config.test_monitoring import RULES, RULES_TEST, queries, rules
from tests.mesh.test_process import Process, client, end
from tests.store.etcd_server import etcd_server, free_port
from tests.store.waiting import until

LABELS = {"namespace": "modelmesh-serving", "pod": "one"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    """The rules as Prometheus takes them: the operator writes what is under `spec` into a file too."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text())["spec"]))
    return path


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid_and_fire_when_they_should(rules_file: Path, tmp_path: Path) -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", rules_file.name, folder=tmp_path)
    (tmp_path / "rules_test.yaml").write_text(RULES_TEST.read_text())
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yaml", folder=tmp_path)


class Prometheus:
    """One that scrapes a mesh instance every second."""

    def __init__(self, folder: Path, target_port: int, rules_file: Path, stack: ExitStack) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules_file)],
            "scrape_configs": [
                {
                    "job_name": "modelmesh",
                    "static_configs": [{"targets": [f"127.0.0.1:{target_port}"], "labels": LABELS}],
                }
            ],
        }
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(configuration))
        command = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            stack.callback(end, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def ask(self, query: str) -> list[Any]:
        result: list[Any] = self.get("query", query=query)["result"]
        return result

    def scrapes(self) -> int:
        """Scrapes that went well."""
        try:
            found = self.ask("sum(count_over_time((up == 1)[10m:1s]))")
        except httpx.TransportError:
            return 0
        return int(found[0]["value"][1]) if found else 0

    def own(self, name: str) -> float:
        """One of its own measurements."""
        text = httpx.get(f"{self.url}/metrics", timeout=10).text
        return float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0])


async def test_a_real_prometheus_makes_sense_of_a_real_mesh(
    tmp_path: Path, rules_file: Path, stack: ExitStack
) -> None:
    etcd = stack.enter_context(etcd_server(tmp_path / "etcd"))
    mesh = Process("5f6d7-aaaaa", tmp_path, etcd, stack)
    mesh.start_runtime()
    mesh.start_mesh()
    await mesh.wait_ready()
    prometheus = Prometheus(tmp_path, mesh.ports["metrics"], rules_file, stack)
    async with client(mesh) as user:
        await user.deploy("v")
        await until(lambda: prometheus.scrapes() > 0, 30)
        before = prometheus.scrapes()

        async def scraped_meanwhile() -> bool:
            await user.infer("v")
            return prometheus.scrapes() > before + 4

        await until(scraped_meanwhile, 30)
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    for problem in ("duplicate_timestamp", "out_of_order", "out_of_bounds"):
        assert prometheus.own(f"prometheus_target_scrapes_sample_{problem}_total") == 0

    (group,) = prometheus.get("rules")["groups"]
    assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in group["rules"]} == {
        rule["alert"]: ("ok", "") for rule in rules()
    }
    assert [rule["name"] for rule in group["rules"] if rule["state"] != "inactive"] == []
    for name in {name for rule in rules() for name in re.findall(r"\bmodelmesh_\w+", rule["expr"])}:
        assert prometheus.ask(name), f"{name} is in no scrape"

    for query in queries():
        if label := re.fullmatch(r"label_values\((\w+), (\w+)\)", query):
            parameters = {"match[]": label[1]}
            assert prometheus.get(f"label/{label[2]}/values", **parameters) == [LABELS["namespace"]]
            continue
        expression = query.replace("$namespace", ".*").replace("$__rate_interval", "1m")
        assert prometheus.ask(expression), f"{query} finds nothing"
    assert (
        json.dumps(prometheus.get("metadata", metric="modelmesh_api_request_milliseconds")).count("help") == 1
    )
