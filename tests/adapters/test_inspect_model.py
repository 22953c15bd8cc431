import re
from pathlib import Path

import pytest

from adapters.inspect_model import main


def test_what_triton_will_see_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text('name: "old"\nbackend: "python"\n')
    assert main([str(tmp_path / "m"), "--runtime", "triton", "--name", "mine"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "/models/_triton_models/",
        "  mine/",
        f"    1 -> {tmp_path}/m/1",
        "    config.pbtxt",
        '      | backend: "python"',
    ]


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("triton", "1/\n      model.onnx -> "),
        ("ovms", "1/\n      model.onnx -> "),
        ("mlserver", '"uri": "/models/_mlserver_models/MODEL/net"'),
        ("torchserve", "_MODEL.mar -> "),
    ],
)
def test_every_server_can_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str, expected: str
) -> None:
    (tmp_path / "net").write_text("")
    assert main([str(tmp_path / "net"), "--runtime", runtime, "--format", "ONNX"]) == 0
    assert expected in capsys.readouterr().out


def test_what_is_converted_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(__file__).with_name("keras_files") / "images-3.h5"
    assert main([str(file), "--runtime", "triton", "--format", "keras"]) == 0
    assert re.search(r"^      model\.onnx \(converted, \d{4} bytes\)$", capsys.readouterr().out, re.MULTILINE)


def test_what_cannot_be_laid_out_is_told_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mnist.h5").write_text("")
    assert main([str(tmp_path / "mnist.h5"), "--runtime", "triton", "--format", "keras"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("modelmesh inspect-model: mnist.h5 is no HDF5 file of Keras")
    assert error.count("\n") == 1
    assert main([str(tmp_path), "--runtime", "vllm"]) == 1
    assert 'unknown server type "vllm"' in capsys.readouterr().err
