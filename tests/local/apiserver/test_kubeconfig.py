from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from local.apiserver import write_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path


def test_it_points_at_the_server_with_a_default_namespace(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kubeconfig"
    write_kubeconfig(path, "http://127.0.0.1:1", "ns")
    write_kubeconfig(path, "http://127.0.0.1:2", "ns")
    config = yaml.safe_load(path.read_text())
    (context,) = config["contexts"]
    assert config["current-context"] == context["name"]
    assert context["context"]["namespace"] == "ns"
    assert config["clusters"][0]["cluster"] == {"server": "http://127.0.0.1:2"}
    assert [entry.name for entry in path.parent.iterdir()] == ["kubeconfig"]
