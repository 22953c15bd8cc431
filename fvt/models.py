"""Models that cases need beside the samples: small, put into the sample bucket at the start."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from fvt import overlay
from fvt.objects import BUCKET, SKLEARN, STORAGE_KEY
from fvt.waiting import wait
from tests.adapters.triton_models import RELU_ONNX, UPPER_CONFIG, UPPER_MODEL

if TYPE_CHECKING:
    from fvt.cluster import Cluster
    from fvt.inference import Address

CORRUPT = "fvt/corrupt.joblib"
RELU = "fvt/relu.onnx"
UPPER = "fvt/upper"
KERAS = "fvt/images.h5"
SCHEMA = "fvt/schema.json"
SECOND = "fvt/second.joblib"
"""The digit model once more: another path, so another concrete model."""

_SCHEMA = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}


KERAS_FILES = overlay.ROOT / "tests" / "adapters" / "keras_files"


class Bucket:
    """The bucket of the sample models."""

    def __init__(self, address: Address, cluster: Cluster) -> None:
        self._address = address
        secret = cluster.get("secret", "storage-config")["data"][STORAGE_KEY]
        self._access = json.loads(b64decode(secret))

    def fill(self) -> None:
        """Put the cases' models there."""
        wait(lambda: self._has(SKLEARN), f"{SKLEARN} in bucket {BUCKET}", 60)
        self.put(CORRUPT, b"this is not a model")
        self.put(RELU, RELU_ONNX)
        self.put(KERAS, (KERAS_FILES / "images-2.h5").read_bytes())
        self.put(f"{UPPER}/config.pbtxt", UPPER_CONFIG)
        self.put(f"{UPPER}/1/model.py", UPPER_MODEL)
        self.put(SCHEMA, json.dumps(_SCHEMA).encode())
        self.put(SECOND, self.read(SKLEARN))

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        obstore.put(self._store(), key, content)

    def read(self, key: str) -> bytes:
        """Return an object's content."""
        return bytes(obstore.get(self._store(), key).bytes())

    def _has(self, key: str) -> bool:
        try:
            obstore.head(self._store(), key)
        except FileNotFoundError as error:
            raise AssertionError(str(error)) from error
        return True

    def _store(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=f"http://{self._address.address()}",
            access_key_id=self._access["access_key_id"],
            secret_access_key=self._access["secret_access_key"],
            region=self._access.get("region", "us-south"),
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
