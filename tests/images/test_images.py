"""What Containerfiles and their builder promise, as far as it can be seen without building."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import pytest
import yaml

from controller.config import Configuration
from images import bases, build, catalog, engine
from images.catalog import ROOT, Image
from images.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

EVERY = list(catalog.every().values())
OURS = list(catalog.ours())


def lines(image: Image) -> list[str]:
    """The instructions of a Containerfile, continued lines joined, comments left out."""
    text = (image.folder / "Containerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def last_stage(image: Image) -> list[str]:
    found = lines(image)
    return found[max(i for i, line in enumerate(found) if line.startswith("FROM ")) :]


@pytest.fixture(params=EVERY, ids=lambda image: image.name)
def image(request: pytest.FixtureRequest) -> Image:
    found: Image = request.param
    return found


def test_every_image_runs_as_a_fixed_user_who_is_not_root(image: Image) -> None:
    users = [line.split()[1] for line in last_stage(image) if line.startswith("USER ")]
    assert users
    assert re.fullmatch(r"[1-9]\d*:\d+", users[-1])


def test_every_base_is_an_argument_with_a_public_default_of_a_fixed_version(image: Image) -> None:
    found = lines(image)
    defaults = dict(line.removeprefix("ARG ").split("=", 1) for line in found if line.startswith("ARG "))
    for line in (line for line in found if line.startswith("FROM ")):
        base = line.split()[1]
        while (name := re.fullmatch(r"\$\{(\w+)\}", base)) is not None:
            base = defaults[name[1]]
        assert base == "scratch" or re.fullmatch(r"docker\.io/.+:\d[\w.-]+", base)


def test_no_compiler_or_package_manager_is_added_to_what_runs(image: Image) -> None:
    text = "\n".join(last_stage(image))
    assert not re.search(r"\b(gcc|clang|cargo|golang|pip install|build-essential)\b", text)


def copied(image: Image) -> set[str]:
    """What a build takes out of the repository."""
    copies = (line.split()[1:-1] for line in lines(image) if line.startswith("COPY "))
    return {path for words in copies if not words[0].startswith("--from") for path in words}


def test_what_a_build_copies_is_in_its_fingerprint(image: Image) -> None:
    known = (f"images/{image.name}", *image.inputs)
    missing = {path for path in copied(image) if not any(f"{path}/".startswith(f"{k}/") for k in known)}
    assert not missing


def test_what_a_build_copies_exists_and_is_sent_to_it(image: Image) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in copied(image):
        assert (ROOT / path).exists()
        assert any(fnmatch(f"{path}/", f"{pattern}/*") for pattern in sent), path


@pytest.mark.parametrize(
    ("name", "module"), [("mesh", "mesh"), ("adapter", "adapters"), ("controller", "controller")]
)
def test_an_image_has_every_folder_that_its_process_imports(name: str, module: str, tmp_path: Path) -> None:
    found = lines(catalog.find(name))
    folders = re.search(r'install project "([^"]+)"', "\n".join(found))
    assert folders
    for folder in folders[1].split():
        (tmp_path / folder).symlink_to(ROOT / folder)
    packages = {
        "modelmesh_dataplane": ROOT / "dataplane/python/modelmesh_dataplane",
        "modelmesh": ROOT / "modelmesh",
    }
    for package, path in packages.items():
        (tmp_path / package).symlink_to(path)
    # Without `site` no editable install brings the rest of the repository in.
    script = f"""
import importlib, pkgutil, {module}
for found in pkgutil.walk_packages({module}.__path__, "{module}."):
    if ".testing" not in found.name and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""
    path = f"{tmp_path}:{sysconfig.get_path('purelib')}"
    command = [sys.executable, "-S", "-P", "-c", script]
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_build_of_the_dataplane_is_sent_all_that_cargo_asks_for() -> None:
    """Cargo refuses a manifest that names a target whose file is missing, whatever is built."""
    manifest = tomllib.loads((ROOT / "dataplane/Cargo.toml").read_text())
    folders = {"bench": "benches", "bin": "src", "example": "examples", "test": "tests"}
    asked = {f"dataplane/{folder}" for kind, folder in folders.items() if kind in manifest}
    assert "build" not in manifest["package"]
    assert asked <= copied(catalog.find("mesh"))


def test_the_commands_that_deployments_name_are_in_the_images() -> None:
    adapter = "\n".join(lines(catalog.find("adapter")))
    mesh = "\n".join(lines(catalog.find("mesh")))
    configuration = Configuration()
    types = re.search(r"for type in ([\w ]+);", adapter)
    assert types
    assert set(types[1].split()) == set(configuration.built_in_server_types)
    assert configuration.storage_helper_image.command == ("/opt/app/puller",)
    assert "ln -s launch puller" in adapter
    assert "/opt/kserve/mmesh/stop.sh" in mesh


@pytest.mark.parametrize(
    ("link", "arguments"),
    [("mlserver-adapter", "adapter mlserver"), ("puller", "puller")],
)
def test_the_name_of_a_launcher_says_what_it_starts(link: str, arguments: str, tmp_path: Path) -> None:
    (tmp_path / "modelmesh").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "modelmesh").chmod(0o755)
    (tmp_path / link).symlink_to(ROOT / "images/adapter/launch")
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = subprocess.run(
        [tmp_path / link, "more"], env=path, capture_output=True, text=True, check=True
    ).stdout
    assert said == f"{arguments} more\n"


def references() -> set[str]:
    """Every image that a manifest or the controller's defaults name."""
    configuration = Configuration()
    found = {configuration.model_mesh_image.reference, configuration.storage_helper_image.reference}
    for pattern in ("config/**/*.yaml", "runtimes/*.yaml"):
        for file in ROOT.glob(pattern):
            found |= set(re.findall(r"^\s*(?:- )?image: (\S+)$", file.read_text(), flags=re.MULTILINE))
    for file in ROOT.glob("config/**/Kustomization"):
        for item in yaml.safe_load(file.read_text()).get("images", []):
            found -= {item["name"]}
            found |= {f"{item['name']}:{item['newTag']}"}
    return found


def test_every_image_of_a_manifest_can_be_built_here() -> None:
    names = {image.reference for image in EVERY}
    short = {reference.removeprefix("docker.io/") for reference in names}
    assert references() - names - short == set()


def test_our_images_carry_the_version_of_the_project() -> None:
    version = yaml.safe_load(
        re.findall(r'^version = (".+")$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    )
    assert {image.reference.rsplit(":", 1)[1] for image in OURS} == {version}


class RecordingEngine(engine.Engine):
    """A stand-in that builds nothing: it notes what it is asked for and writes an empty archive."""

    asked: list[str] = []  # noqa: RUF012 - cleared by the fixture

    def build(self, reference: str, *_: object, **__: object) -> None:
        self.asked.append(reference)

    def save(self, reference: str, archive: Path) -> None:
        archive.write_text(reference)

    def has(self, reference: str) -> bool:
        return reference in self.asked


@pytest.fixture
def recording() -> RecordingEngine:
    RecordingEngine.asked.clear()
    return RecordingEngine("buildah")


def test_an_image_whose_inputs_are_unchanged_is_not_built_again(
    recording: RecordingEngine, tmp_path: Path
) -> None:
    image = catalog.find("mesh")
    assert build.ensure(image, recording, bases.Bases(), tmp_path)
    assert not build.ensure(image, recording, bases.Bases(), tmp_path)
    assert build.ensure(image, recording, bases.Bases({"BASE": "another"}), tmp_path)
    assert recording.asked == [image.reference] * 2


def test_an_image_that_starts_from_another_has_it_built_first(
    recording: RecordingEngine, tmp_path: Path
) -> None:
    build.ensure(catalog.find("minio-examples"), recording, bases.Bases({"BASE": "made here"}), tmp_path)
    assert [reference.split("/")[-1].split(":")[0] for reference in recording.asked] == [
        "mlserver",
        "minio-examples",
    ]


def test_with_a_registry_public_images_are_not_built(recording: RecordingEngine, tmp_path: Path) -> None:
    build.ensure(catalog.find("minio-examples"), recording, bases.Bases(), tmp_path)
    assert len(recording.asked) == 1


def test_a_changed_file_or_mode_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images" / "etcd"
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    image = catalog.find("etcd")
    (folder / "run").write_text("one")
    prints = [build.fingerprint(image, bases.Bases())]
    (folder / "run").write_text("two")
    prints.append(build.fingerprint(image, bases.Bases()))
    (folder / "run").chmod(0o755)
    prints.append(build.fingerprint(image, bases.Bases()))
    assert len(set(prints)) == 3


def program(folder: Path, name: str, status: int) -> None:
    """A stand-in for a container program that only says whether it works."""
    (folder / name).write_text(f"#!/bin/sh\nexit {status}\n")
    (folder / name).chmod(0o755)


def test_the_first_program_that_works_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="install docker, podman or buildah"):
        engine.find()
    program(tmp_path, "buildah", 0)
    program(tmp_path, "docker", 1)
    assert engine.find().name == "buildah"
    program(tmp_path, "docker", 0)
    assert engine.find().name == "docker"
    with pytest.raises(ImageError, match="podman works on this machine"):
        engine.find("podman")
    with pytest.raises(ImageError, match="docker, podman, buildah can"):
        engine.find("kaniko")


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_a_build_is_asked_for_in_the_words_of_each_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n')
    (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    mount = engine.Mount(tmp_path, "/cache")
    asked = engine.Engine(name)
    asked.build("a:1", tmp_path, containerfile=tmp_path / "File", arguments={"BASE": "b:1"}, mounts=(mount,))
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"build --tag a:1 --file {tmp_path}/File --build-arg BASE=b:1")
    assert said.endswith(f" {tmp_path}\n")
    assert (f"--volume {tmp_path}:/cache:rw" in said) == (name != "docker")
    assert ("--isolation chroot" in said) == (name == "buildah")


def test_a_program_that_fails_is_an_error_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "podman", 3)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="saving a:1 failed: podman ended with status 3"):
        engine.Engine("podman").save("a:1", tmp_path / "a.tar")


def test_docker_without_a_registry_is_told_what_else_to_use(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="podman or buildah"):
        bases.find(engine.Engine("docker"), tmp_path, "debian")
    with pytest.raises(ImageError, match="registry, debian and auto"):
        bases.find(engine.Engine("docker"), tmp_path, "alpine")


def test_what_a_machine_lacks_for_its_own_bases_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="apt-get install debootstrap"):
        bases.check(engine.Engine("buildah"), "debian")


def test_public_bases_are_the_containerfiles_own(tmp_path: Path) -> None:
    assert bases.find(engine.Engine("docker"), tmp_path, "registry") == bases.Bases()
