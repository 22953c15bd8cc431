"""Type constraints and call rules: what they mean, and how their files change."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mesh.constraints import (
    RpcRules,
    TypeConstraints,
    Watched,
    allows,
    parse_constraints,
    parse_rpc_rules,
    prefers,
)
from mesh.errors import ConfigError

CONSTRAINTS = b"""{
    "mt:sklearn": {"required": ["mt:sklearn", "pv:v2"], "preferred": ["gpu", "pv:v2"]},
    "_default": {"required": ["_no_runtime"]}
}"""


def test_an_instance_needs_all_required_labels_and_any_preferred_one() -> None:
    requirement = parse_constraints(CONSTRAINTS).of("mt:sklearn")
    assert allows(requirement, ["mt:sklearn", "pv:v2", "other"])
    assert not allows(requirement, ["mt:sklearn"])
    assert prefers(requirement, ["gpu"])
    assert not prefers(requirement, ["pv:v2"]), "a label in both lists counts as required only"


def test_unlisted_types_have_the_default_and_without_constraints_anything_goes() -> None:
    assert parse_constraints(CONSTRAINTS).of("mt:onnx").required == ("_no_runtime",)
    assert allows(TypeConstraints().of("mt:onnx"), [])


def test_call_rules() -> None:
    rules = parse_rpc_rules(
        '{"rpcConfigs": {"a.B/C": {"idExtractionPath": [1, 2], "vModelId": true}, "a.B/D": {}}}'
    )
    assert rules == RpcRules({"a.B/C": ((1, 2), True), "a.B/D": ((), False)}, allow_other=False)
    assert parse_rpc_rules('{"allowOtherRpcs": true}').allow_other


@pytest.mark.parametrize("raw", ["", "[]", '{"rpcConfig": {}}', '{"rpcConfigs": {"a": {"path": [1]}}}'])
def test_call_rules_with_unknown_members_are_refused(raw: str) -> None:
    with pytest.raises(ConfigError):
        parse_rpc_rules(raw)


def test_a_changed_file_is_read_again_and_a_bad_one_leaves_the_last_good(tmp_path: Path) -> None:
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    first.write_bytes(CONSTRAINTS)
    second.write_text("{")
    third.write_text('{"t": {"required": ["x"]}}')
    link = tmp_path / "..data"
    link.symlink_to(first)
    watched = Watched(link, parse_constraints, TypeConstraints())
    assert watched.look()
    good = watched.value
    assert not watched.look()
    link.unlink()
    link.symlink_to(second)
    with capture_logs() as logs:
        assert not watched.look()
        assert not watched.look()
    assert [(entry["log_level"], entry["path"]) for entry in logs] == [("error", str(link))]
    assert watched.value == good
    link.unlink()
    link.symlink_to(third)
    assert watched.look()
    assert watched.value.of("t").required == ("x",)


def test_a_missing_file_is_logged_once_and_the_last_good_value_stays(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "none", parse_constraints, TypeConstraints())
    with capture_logs() as logs:
        assert not watched.look()
        assert not watched.look()
    assert len(logs) == 1
