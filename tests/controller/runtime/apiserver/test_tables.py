from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from api.core import DEPLOYMENT, EVENT, POD, SERVICE
from controller.runtime.apiserver import Core, table
from controller.runtime.apiserver.tables import human_duration

if TYPE_CHECKING:
    from api.resource import Resource

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=-5), "<invalid>"),
        (timedelta(seconds=-1), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(minutes=9, seconds=30), "9m30s"),
        (timedelta(minutes=10, seconds=30), "10m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3, minutes=5), "3h5m"),
        (timedelta(hours=47, minutes=5), "47h"),
        (timedelta(days=2, hours=4), "2d4h"),
        (timedelta(days=8, hours=4), "8d"),
        (timedelta(days=729), "729d"),
        (timedelta(days=800), "2y70d"),
        (timedelta(days=4000), "10y"),
    ],
)
def test_ages_print_as_kubectl_prints_them(age: timedelta, text: str) -> None:
    assert human_duration(age) == text


def _row(core: Core, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    obj["metadata"] = {"name": "x", "creationTimestamp": "2026-01-01T11:55:00Z", **obj.get("metadata", {})}
    made = table(core.kind(resource), [obj], now=_NOW, metadata={})
    names = [column["name"] for column in made["columnDefinitions"]]
    return dict(zip(names, made["rows"][0]["cells"], strict=True))


def test_custom_columns_show_the_first_match_or_nothing(core: Core, widget_resource: Resource) -> None:
    conditions = [{"type": "Other", "status": "Unknown"}, {"type": "Ready", "status": "True"}]
    obj = {
        "spec": {"size": 3, "off": False, "parts": [{"name": "a"}, {"name": "b"}]},
        "status": {"conditions": conditions},
    }
    expected = {"Name": "x", "Size": 3, "Ready": "True", "Parts": "a", "Off": False, "Age": "5m"}
    assert _row(core, widget_resource, obj) == expected
    empty = {"Name": "x", "Size": None, "Ready": None, "Parts": None, "Off": None, "Age": "5m"}
    assert _row(core, widget_resource, {"spec": {"size": "wrong type"}}) == empty


def test_pod_row_tells_what_a_container_waits_for(core: Core) -> None:
    pod: dict[str, Any] = {
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "local"},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "containerStatuses": [
                {"ready": True, "restartCount": 2, "state": {"running": {}}},
                {
                    "ready": False,
                    "restartCount": 1,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2026-01-01T11:59:00Z"}},
                },
            ],
        },
    }
    row = _row(core, POD, pod)
    assert (row["Ready"], row["Status"], row["Restarts"]) == ("1/2", "CrashLoopBackOff", "3 (60s ago)")
    assert (row["IP"], row["Node"]) == ("127.0.0.1", "local")
    pod["metadata"] = {"deletionTimestamp": "2026-01-01T12:00:00Z"}
    assert _row(core, POD, pod)["Status"] == "Terminating"


def test_rows_of_other_built_in_kinds(core: Core) -> None:
    deployment = {"spec": {"replicas": 3}, "status": {"readyReplicas": 1, "updatedReplicas": 2}}
    assert _row(core, DEPLOYMENT, deployment)["Ready"] == "1/3"
    service = {
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}],
        }
    }
    row = _row(core, SERVICE, service)
    assert (row["Cluster-IP"], row["Port(s)"]) == ("None", "80/TCP,53/UDP")
    event = {
        "type": "Warning",
        "reason": "Failed",
        "message": "text",
        "involvedObject": {"kind": "Pod", "name": "p"},
        "lastTimestamp": "2026-01-01T11:00:00Z",
    }
    row = _row(core, EVENT, event)
    assert (row["Last Seen"], row["Object"], row["Message"]) == ("60m", "pod/p", "text")


def test_a_row_carries_metadata_the_object_or_nothing(core: Core) -> None:
    kind = core.kind(POD)
    obj = {"metadata": {"name": "x"}, "spec": {}}
    rows = {
        name: table(kind, [obj], now=_NOW, metadata={}, include=name)["rows"][0]
        for name in ("None", "Metadata", "Object")
    }
    assert "object" not in rows["None"]
    assert rows["Metadata"]["object"]["kind"] == "PartialObjectMetadata"
    assert rows["Object"]["object"] is obj
