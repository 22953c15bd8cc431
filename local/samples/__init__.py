"""Sample models: trained once, kept by the hash of what made them, and put into the cluster's bucket."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from local.errors import SamplesFailedError
from local.manifests import ACCESS_KEY, BUCKET, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRAIN = Path(__file__).parent / "train.py"
PREDICT = Path(__file__).parent / "predict.py"


def locate(folder: Path, environment: Path) -> Path:
    """Return where the models that this script and this environment make are kept below `folder`."""
    digest = hashlib.sha256(_TRAIN.read_bytes() + environment.name.encode()).hexdigest()
    return folder / digest[:12]


def ensure(folder: Path, environment: Path) -> Path:
    """Return the folder of the sample models, after training them where they are missing.

    Args:
        folder: where trained models are kept.
        environment: the Python environment with scikit-learn, XGBoost and LightGBM.

    Raises:
        SamplesFailedError: says what the script said.
    """
    models = locate(folder, environment)
    if models.is_dir():
        return models
    draft = models.with_name(f"{models.name}.new.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    command = [str(environment / "bin" / "python"), str(_TRAIN), str(draft)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise SamplesFailedError(f"training the sample models failed: {last}")
    draft.rename(models)
    return models


def upload(models: Path, endpoint: str, prefix: str = "") -> list[str]:
    """Put a file, or a folder's files, into the bucket of the S3 server at `endpoint`; return their keys.

    A file's key is `prefix`; those of a folder's files begin with it.

    Raises:
        SamplesFailedError: there is no file, or one cannot be stored.
    """
    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region="us-south",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    keys = []
    for file in _files(models):
        key = str(PurePosixPath(prefix, file.relative_to(models)))
        try:
            obstore.put(store, key, file)
        except (BaseError, OSError, ValueError) as error:
            raise SamplesFailedError(
                f"storing {key} in bucket {BUCKET} at {endpoint} failed: {error}"
            ) from error
        keys.append(key)
    if not keys:
        raise SamplesFailedError(f"{models} has no files")
    return keys


def _files(models: Path) -> Iterator[Path]:
    return (file for file in sorted((models, *models.rglob("*"))) if file.is_file())
