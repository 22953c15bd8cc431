import pytest

from controller.errors import InvalidSpecError
from controller.storage_uri import parse


@pytest.mark.parametrize(
    ("uri", "path", "parameters"),
    [
        ("s3://B/a/b.joblib", "a/b.joblib", {"type": "s3", "bucket": "B"}),
        ("s3://B", "", {"type": "s3", "bucket": "B"}),
        ("s3://B//a", "/a", {"type": "s3", "bucket": "B"}),
        ("gs://B/P", "P", {"type": "gcs", "bucket": "B"}),
        ("pvc://N/P", "P", {"type": "pvc", "name": "N"}),
        (
            "https://acc.blob.core.windows.net/C/a/b",
            "a/b",
            {"type": "azure", "account_name": "acc", "container": "C"},
        ),
        (
            "https://host:8443/models/m.zip?token=x",
            "models/m.zip",
            {"type": "http", "url": "https://host:8443?token=x"},
        ),
        ("http://host/m", "m", {"type": "http", "url": "http://host"}),
    ],
)
def test_maps_to_path_and_parameters(uri: str, path: str, parameters: dict[str, str]) -> None:
    assert parse(uri) == (path, parameters)


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("hdfs://x/y", "hdfs"),
        ("/local/path", "must be s3://"),
        ("models/m", "must be s3://"),
        ("s3:///p", "s3"),
        ("http://[::1/p", "not a URI"),
    ],
)
def test_says_what_is_wrong(uri: str, names: str) -> None:
    with pytest.raises(InvalidSpecError, match=names):
        parse(uri)
