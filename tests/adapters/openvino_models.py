"""Makes an OpenVINO IR; runs in the environment of OpenVINO's stand-in: `python openvino_models.py FOLDER`.

The model is y = relu(x @ w), with w the numbers 0 to 11 as 4 by 3, for any number of rows.
"""

import subprocess
import sys
from pathlib import Path


def make(environment: Path, folder: Path) -> dict[str, bytes]:
    """Contents of the model's files by their names."""
    folder.mkdir(exist_ok=True)
    subprocess.run([environment / "bin" / "python", __file__, folder], check=True)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _main(folder: str) -> None:
    import numpy as np  # noqa: PLC0415 - of the other environment
    import openvino  # noqa: PLC0415
    from openvino import opset13 as ops  # noqa: PLC0415

    x = ops.parameter([-1, 4], np.float32, name="x")
    weights = ops.constant(np.arange(12, dtype=np.float32).reshape(4, 3))
    y = ops.relu(ops.matmul(x, weights, transpose_a=False, transpose_b=False), name="y")
    y.output(0).get_tensor().set_names({"y"})
    x.output(0).get_tensor().set_names({"x"})
    openvino.save_model(openvino.Model([y], [x], "relu"), f"{folder}/relu.xml", compress_to_fp16=False)


if __name__ == "__main__":
    _main(sys.argv[1])
