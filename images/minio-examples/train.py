# mypy: disable-error-code="import-not-found"
"""Trains the samples that `local/samples/train.py` does not make; run by the Python of the MLServer image.

    python train.py DATA FOLDER

reads below DATA the digits of MNIST (`mnist`) and the mushrooms of UCI (`agaricus.libsvm`), and writes
below FOLDER

    xgboost/mushroom.json     boosted trees on 126 yes-or-no features of a mushroom, 1 is poisonous
    lightgbm/mushroom.bst     the same task
    pytorch-mar/mnist.mar     a network of one hidden layer on MNIST, run by a handler in NumPy
    mnist.npz                 the weights of that network, for the other formats
"""

import gzip
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import xgboost
from sklearn.datasets import load_svmlight_file
from sklearn.neural_network import MLPClassifier

SEED = 7
_HEADER_BYTES = {"images": 16, "labels": 8}
_EPOCHS = 10
_LEAST_ACCURACY = 0.96
_MUSHROOM_ACCURACY = 0.99


def mushrooms(data: Path, folder: Path) -> None:
    """Train both models of the mushrooms."""
    matrix, poisonous = load_svmlight_file(str(data / "agaricus.libsvm"), n_features=126)
    features = matrix.toarray()
    parameters = {"objective": "binary:logistic", "max_depth": 4, "seed": SEED, "nthread": 1}
    trees = xgboost.train(parameters, xgboost.DMatrix(features, poisonous), num_boost_round=20)
    trees.save_model(folder / "xgboost" / "mushroom.json")
    parameters = {"objective": "binary", "num_leaves": 15, "seed": SEED, "num_threads": 1, "verbose": -1}
    forest = lightgbm.train(parameters, lightgbm.Dataset(features, poisonous), num_boost_round=40)
    forest.save_model(folder / "lightgbm" / "mushroom.bst")
    for answers in (trees.predict(xgboost.DMatrix(features)), forest.predict(features)):
        accuracy = ((answers > 0.5) == poisonous).mean()  # noqa: PLR2004 - the middle
        if accuracy < _MUSHROOM_ACCURACY:
            sys.exit(f"a model knows only {accuracy:.1%} of the mushrooms")


def _read(file: Path) -> Any:
    kind = "images" if "images" in file.name else "labels"
    return np.frombuffer(gzip.decompress(file.read_bytes())[_HEADER_BYTES[kind] :], dtype=np.uint8)


def _digits(data: Path, part: str) -> tuple[Any, Any]:
    """Return the pixels, N by 784 between 0 and 1, and the labels of a part of MNIST."""
    pixels = _read(data / "mnist" / f"{part}-images-idx3-ubyte.gz").reshape(-1, 784)
    return (pixels / 255).astype(np.float32), _read(data / "mnist" / f"{part}-labels-idx1-ubyte.gz")


def digits(data: Path, folder: Path) -> None:
    """Train the network, and keep its weights: `w1` 784 by 64, `b1` 64, `w2` 64 by 10, `b2` 10."""
    network = MLPClassifier((64,), max_iter=_EPOCHS, random_state=SEED, early_stopping=False)
    # It is told to stop before it would by itself, and says so.
    network.fit(*_digits(data, "train"))
    accuracy = network.score(*_digits(data, "t10k"))
    if accuracy < _LEAST_ACCURACY:
        sys.exit(f"the network knows only {accuracy:.1%} of the digits it has not seen")
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    weights = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}
    np.savez(folder / "mnist.npz", **{name: value.astype(np.float32) for name, value in weights.items()})
    with zipfile.ZipFile(folder / "pytorch-mar" / "mnist.mar", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "mnist.npz", "mnist.npz")
        archive.write(Path(__file__).with_name("torchserve_handler.py"), "handler.py")
        manifest = {"runtime": "python", "model": {"modelName": "mnist", "handler": "handler.py"}}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    for name in ("xgboost", "lightgbm", "pytorch-mar"):
        (target / name).mkdir(parents=True, exist_ok=True)
    mushrooms(source, target)
    digits(source, target)
