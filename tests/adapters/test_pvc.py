"""Models on claims: linked, confined to the claim, whatever the links in it say."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterError, ObjectNotFoundError, StorageConfigError, StorageDeniedError
from adapters.puller import ModelKey, Pulled, Puller
from adapters.puller.settings import PullerSettings


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    claim = tmp_path / "pvc" / "models"
    (claim / "dir" / "sub").mkdir(parents=True)
    (claim / "dir" / "a").write_text("aaa")
    (claim / "dir" / "sub" / "link").symlink_to("../../other")
    (claim / "other").write_text("12345")
    (claim / "alias").symlink_to("dir")
    (claim / "schema.json").write_text("{}")
    (claim / "stolen").symlink_to("../../secret/entry")
    (claim / "mixed").mkdir()
    (claim / "mixed" / "stolen").symlink_to(tmp_path / "secret" / "entry")
    (claim / "dangling").symlink_to("nowhere")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "entry").write_text('{"type": "pvc", "name": "models"}')
    return claim


@pytest.fixture
def puller(tmp_path: Path, claim: Path) -> Puller:
    (tmp_path / "models").mkdir()
    settings = PullerSettings(
        root=tmp_path / "models", secret=tmp_path / "secret", claims=claim.parent, cache_bytes=1 << 20
    )
    return Puller(settings, key_patience_s=0)


async def pull(puller: Puller, path: str, name: str = "models", **key: Any) -> Pulled:
    params = {"type": "pvc", "name": name}
    return await puller.pull("m", path, ModelKey.parse(json.dumps({"storage_params": params} | key)))


@pytest.mark.parametrize("path", ["dir", "/dir/", "alias", "./dir"])
async def test_a_folder_is_linked_and_its_size_counts_what_links_lead_to(
    puller: Puller, claim: Path, path: str
) -> None:
    pulled = await pull(puller, path)
    assert pulled.path.is_symlink()
    assert pulled.path.resolve() == claim / "dir"
    assert pulled.key.disk_size_bytes == 8  # the original resolves relative links from its own folder: 0


async def test_a_load_without_an_unload_before_replaces_the_link(puller: Puller, claim: Path) -> None:
    await pull(puller, "dir")
    pulled = await pull(puller, "dir")
    assert pulled.path.resolve() == claim / "dir"


async def test_local_names_are_kept(puller: Puller, claim: Path) -> None:
    pulled = await pull(puller, "schema.json", schema_path="schema.json")
    schema = puller._root / "m" / "_schema.json"
    assert pulled.key.schema_path == str(schema)
    assert schema.resolve() == claim / "schema.json"


async def test_an_entry_of_the_secret_names_the_claim(puller: Puller) -> None:
    pulled = await puller.pull("m", "other", ModelKey(storage_key="entry"))
    assert pulled.path.read_text() == "12345"


async def test_sizes_are_known_before(puller: Puller) -> None:
    key = ModelKey(storage_params={"type": "pvc", "name": "models"})
    assert await puller.size("dir", key) == 8


async def test_removing_a_model_leaves_the_claim_alone(puller: Puller, claim: Path) -> None:
    await pull(puller, "dir")
    puller.remove("m")
    assert (claim / "dir" / "a").read_text() == "aaa"


@pytest.mark.parametrize(
    ("path", "name", "kind", "message"),
    [
        ("../secret/entry", "models", StorageConfigError, "leads out of the PVC"),
        ("dir/../../../secret/entry", "models", StorageConfigError, "leads out of the PVC"),
        ("dir/../other", "models", StorageConfigError, "leads out of the PVC"),
        ("stolen", "models", StorageDeniedError, "stolen of the PVC models leads out of it"),
        ("mixed", "models", StorageDeniedError, "mixed/stolen of the PVC models leads out of it"),
        ("absent", "models", ObjectNotFoundError, "nothing at absent of the PVC models"),
        ("dangling", "models", ObjectNotFoundError, "nothing at dangling"),
        ("a\0b", "models", StorageConfigError, "leads out"),
        ("dir", "unknown", ObjectNotFoundError, "PVC unknown is not mounted"),
        ("dir", "..", StorageConfigError, "no name of a PVC"),
        ("dir", "models/dir", StorageConfigError, "no name of a PVC"),
        ("dir", "", StorageConfigError, "lack name"),
    ],
)
async def test_nothing_outside_of_the_claim_is_reached(
    puller: Puller, path: str, name: str, kind: type[AdapterError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        await pull(puller, path, name)
    assert not (puller._root / "m").exists()
