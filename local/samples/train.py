# mypy: disable-error-code="import-not-found"
"""Trains the sample models; run by the MLServer environment's Python, which has the libraries.

    python train.py FOLDER

writes below FOLDER, from data that scikit-learn ships (no download):

    sklearn/mnist-svm.joblib      a support vector machine on the 8-by-8 digits of `load_digits`
    xgboost/breast-cancer.json    boosted trees on `load_breast_cancer` (30 features, 1 is benign)
    lightgbm/breast-cancer.bst    the same task
"""

import sys
from pathlib import Path

import joblib
import lightgbm
import xgboost
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.svm import SVC

SEED = 7


def train(folder: Path) -> None:
    """Train the models and write them below `folder`."""
    for name in ("sklearn", "xgboost", "lightgbm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    digits, labels = load_digits(return_X_y=True)
    joblib.dump(SVC(gamma=0.001).fit(digits, labels), folder / "sklearn" / "mnist-svm.joblib")

    features, benign = load_breast_cancer(return_X_y=True)
    parameters = {"objective": "binary:logistic", "max_depth": 4, "seed": SEED, "nthread": 1}
    trees = xgboost.train(parameters, xgboost.DMatrix(features, benign), num_boost_round=20)
    trees.save_model(folder / "xgboost" / "breast-cancer.json")

    parameters = {"objective": "binary", "num_leaves": 15, "seed": SEED, "num_threads": 1, "verbose": -1}
    forest = lightgbm.train(parameters, lightgbm.Dataset(features, benign), num_boost_round=20)
    forest.save_model(folder / "lightgbm" / "breast-cancer.bst")


if __name__ == "__main__":
    train(Path(sys.argv[1]))
