"""Makes the models of the tests; runs in MLServer's own environment: `python train.py FOLDER`."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import xgboost
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC


class Slow:
    """Takes three seconds to be read, and is an untrained classifier then."""

    def __reduce__(self) -> tuple[Any, ...]:
        code = "__import__('time').sleep(3) or __import__('sklearn.svm', fromlist=['SVC']).SVC()"
        return eval, (code,)


def main(folder: Path) -> None:
    """Writes the models, and what they answer to given inputs."""
    digits, cancer = load_digits(), load_breast_cancer()
    for name in ("sklearn", "xgboost", "lightgbm"):
        (folder / name).mkdir(parents=True)
    svm = SVC(gamma=0.001).fit(digits.data, digits.target)
    joblib.dump(svm, folder / "sklearn" / "svm.joblib")
    boosted = xgboost.train(
        {"objective": "binary:logistic"}, xgboost.DMatrix(cancer.data, label=cancer.target), 3
    )
    boosted.save_model(folder / "xgboost" / "cancer.json")
    light = lightgbm.train(
        {"objective": "binary", "verbose": -1}, lightgbm.Dataset(cancer.data, cancer.target), 3
    )
    light.save_model(folder / "lightgbm" / "cancer.bst")
    # Small on disk, and 64 MiB of the same number in memory.
    compressed = KNeighborsClassifier(algorithm="brute").fit(np.zeros((1 << 17, 64)), np.zeros(1 << 17))
    joblib.dump(compressed, folder / "sklearn" / "compressed.joblib", compress=3)
    (folder / "sklearn" / "slow.joblib").write_bytes(pickle.dumps(Slow()))
    digit, cell = digits.data[:1], cancer.data[:1]
    answers = {
        "sklearn": {"input": digit[0].tolist(), "output": svm.predict(digit).tolist()},
        "xgboost": {
            "input": cell[0].tolist(),
            "output": boosted.predict(xgboost.DMatrix(cell.astype(np.float32))).tolist(),
        },
        "lightgbm": {"input": cell[0].tolist(), "output": light.predict(cell).tolist()},
    }
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
