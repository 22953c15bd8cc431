from pathlib import Path

import pytest

import local.profiles
from local.errors import LocalError, ProfileMissingError
from local.profiles import Profiles, repository

SHIPPED = Path(local.profiles.__file__).parent


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("seldonio/mlserver:1.7.1", "seldonio/mlserver"),
        ("docker.io/seldonio/mlserver", "seldonio/mlserver"),
        ("registry:5000/seldonio/mlserver:1", "seldonio/mlserver"),
        ("localhost/mlserver@sha256:abc", "mlserver"),
        ("etcd:v3", "etcd"),
        ("quay.io/coreos/etcd:v3.5.1", "coreos/etcd"),
    ],
)
def test_an_image_is_known_by_its_repository(image: str, expected: str) -> None:
    assert repository(image) == expected


def test_an_image_finds_its_program() -> None:
    profile, program = Profiles.load(SHIPPED).find("seldonio/mlserver:1.7.1", "")
    assert profile.python == "mlserver"
    assert program == ("{python}/bin/mlserver",)


def test_a_command_finds_its_program_by_base_name() -> None:
    _, program = Profiles.load(SHIPPED).find("modelmesh/adapter:latest", "/opt/app/mlserver-adapter")
    assert program[-2:] == ("adapter", "mlserver")


def test_an_image_without_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ProfileMissingError, match=r"'example/other:1' has no local profile.*seldonio/mlserver"
    ):
        Profiles.load(SHIPPED).find("example/other:1", "")


def test_a_command_without_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProfileMissingError, match=r"'/opt/app/other'.*mlserver-adapter"):
        Profiles.load(SHIPPED).find("modelmesh/adapter", "/opt/app/other")


def test_a_users_profile_wins(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("images: [seldonio/mlserver]\ncommands: {'': [mine]}\n")
    assert Profiles.load(SHIPPED, tmp_path).find("seldonio/mlserver", "")[1] == ("mine",)


def test_a_named_profile_wins_and_knows_its_folder_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    file, link = tmp_path / "mine" / "profile.yaml", tmp_path / "profiles" / "mine.yaml"
    file.write_text("images: [seldonio/mlserver]\ncommands: {'': [mine]}\n")
    link.parent.mkdir()
    link.symlink_to(file)
    for profiles in (Profiles.load(SHIPPED, files=[file]), Profiles.load(SHIPPED, link.parent)):
        profile, program = profiles.find("seldonio/mlserver", "")
        assert program == ("mine",)
        assert profile.folder == str(tmp_path / "mine")


def test_a_named_profile_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"nothing\.yaml is not a local profile"):
        Profiles.load(SHIPPED, files=[tmp_path / "nothing.yaml"])


@pytest.mark.parametrize("content", [b"images: [a]\ncomands: {}\n", b"{", b"", b"\xff\xfe"])
def test_a_broken_profile_names_its_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.yaml").write_bytes(content)
    with pytest.raises(LocalError, match=r"broken\.yaml"):
        Profiles.load(tmp_path)
