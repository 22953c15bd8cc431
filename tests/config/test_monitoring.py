"""Rules, dashboard and documentation ask for what the programs export, and nothing is exported twice."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.config import exported
from tests.config.conftest import ROOT

RULES = ROOT / "config" / "prometheus" / "rules.yaml"
DASHBOARD = ROOT / "config" / "dashboard" / "modelmesh.json"
RULES_TEST = Path(__file__).with_name("rules_test.yaml")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
OURS = r"\b(?:modelmesh|workqueue|controller_runtime|rest_client|leader_election)_\w+"
NO_SERIES = {
    "modelmesh_dataplane",  # a module
    "modelmesh_service",  # a label
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    """Every query of the dashboard."""
    board = json.loads(DASHBOARD.read_text())
    variables = [
        variable["query"]["query"]
        for variable in board["templating"]["list"]
        if isinstance(variable["query"], dict)
    ]
    return variables + [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def names(text: str) -> set[str]:
    return set(re.findall(OURS, text))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_ask_for_what_is_exported(rule: dict[str, Any]) -> None:
    asked = names(rule["expr"])
    assert asked
    assert asked - exported.series() == set()
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]


def test_the_dashboard_asks_for_what_is_exported() -> None:
    asked = [names(query) for query in queries()]
    assert all(asked)
    assert set().union(*asked) - exported.series() == set()


def test_the_documentation_names_what_is_exported() -> None:
    """A histogram may be named as a whole."""
    whole = exported.series() | {name.removesuffix("_count") for name in exported.series()}
    named = {(path.name, name) for path in DOCS for name in names(path.read_text())}
    assert {(path, name) for path, name in named if name not in whole | NO_SERIES} == set()
    assert len({name for path, name in named if path == "monitoring.md"}) > 30


def test_what_a_mesh_exports_is_documented() -> None:
    named = names((ROOT / "docs" / "how-to" / "monitoring.md").read_text())
    mine = {name for name in exported.families(exported.mesh_text()) if name.startswith("modelmesh_")}
    assert {name for name in mine - named if not name.endswith("_created")} == set()


def test_no_metric_is_exported_twice() -> None:
    """Prometheus drops the second sample of a series, and says so only in its own log."""
    assert {name for name, times in exported.families(exported.mesh_text()).items() if times > 1} == set()


def test_every_alert_is_documented_and_has_a_test_of_its_own() -> None:
    alerts = {rule["alert"] for rule in rules()}
    page = (ROOT / "docs" / "how-to" / "monitoring.md").read_text()
    assert set(re.findall(r"\bModelMesh[A-Z]\w+", page)) == alerts
    assert set(re.findall(r'alertname="(\w+)"', RULES_TEST.read_text())) == alerts
