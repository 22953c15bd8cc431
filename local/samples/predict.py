# mypy: disable-error-code="import-not-found"
"""Draws random digits and predicts them with scikit-learn directly: what the served model must answer too.

    python predict.py MODEL COUNT SEED

prints one JSON object: {"digits": [[64 numbers], ...], "labels": [number, ...]}.
"""

import json
import sys

import joblib
import numpy as np
from sklearn.datasets import load_digits


def predict(model: str, count: int, seed: int) -> dict[str, list[object]]:
    """Return `count` digits of the data set, without repeats, and the model's label of each."""
    digits = load_digits().data
    chosen = digits[np.random.default_rng(seed).choice(len(digits), count, replace=False)]
    return {"digits": chosen.tolist(), "labels": joblib.load(model).predict(chosen).tolist()}


if __name__ == "__main__":
    json.dump(predict(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
