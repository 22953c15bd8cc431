from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from hack.native_cluster import cli, images, programs
from hack.native_cluster.cluster import Cluster, write_changed
from hack.native_cluster.errors import NativeClusterError
from hack.native_cluster.namespaces import Namespaces
from hack.native_cluster.paths import Layout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "state", tmp_path / "tools")


def test_check_names_the_packages_that_are_missing_and_how_to_get_them(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(programs, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(programs, "CNI_PLUGINS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = "\n".join(Cluster(layout).missing())
    assert "apt-get install --no-install-recommends" in said
    for package in ("containerd", "containernetworking-plugins", "etcd-server", "iptables"):
        assert package in said
    assert "Go 1.24 or newer is missing" in said


def test_check_asks_for_no_go_where_everything_is_built(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = programs.kubernetes_folder(layout.tools)
    built = [folder / name for name in programs.KUBERNETES]
    others = (programs.COREDNS, programs.LOCAL_PATH, programs.GRPCURL, programs.KUSTOMIZE)
    built.extend(programs.go_target(program, layout.tools) for program in others)
    built.append(programs.pause_target(layout.tools))
    for path in built:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Go 1.24" not in "\n".join(Cluster(layout).missing())
    built[0].unlink()
    assert "Go 1.24" in "\n".join(Cluster(layout).missing())


def test_commands_on_a_cluster_that_is_down_say_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODELMESH_HOME", str(tmp_path))
    assert cli.main(["exec", "--", "true"]) == 1
    assert "start it with: hack/native-cluster up" in capsys.readouterr().err
    assert cli.main(["exec"]) == 1
    assert "exec needs a program" in capsys.readouterr().err
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().out.split() == ["cluster", "down"]


def test_a_holder_of_before_a_restart_of_the_machine_is_none(layout: Layout) -> None:
    layout.state.mkdir()
    layout.holder.write_text("1 another-boot/1")
    assert Namespaces(layout).holder() is None


def test_an_image_of_the_same_program_has_the_same_bytes(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"program")
    image = images.ProgramImage("example/program:1", {"bin/program": program}, ("/bin/program",), {})
    images.write_archive(image, tmp_path / "first.tar")
    program.touch()
    images.write_archive(image, tmp_path / "second.tar")
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "is no docker-archive"),
        ("[1]", "its manifest.json is none of a docker-archive"),
        (json.dumps([{"RepoTags": None}]), "its images have no names"),
    ],
)
def test_a_file_that_is_no_image_is_refused_by_name(
    layout: Layout, tmp_path: Path, manifest: str | None, message: str
) -> None:
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as content:
        if manifest is not None:
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(manifest)
            content.addfile(entry, io.BytesIO(manifest.encode()))
    with pytest.raises(NativeClusterError, match=f"image.tar.*{message}"):
        images.load(Namespaces(layout), archive)
    with pytest.raises(NativeClusterError, match="there is no such file"):
        images.load(Namespaces(layout), tmp_path / "absent.tar")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox:1", "docker.io/library/busybox:1"),
        ("modelmesh/mesh:1", "docker.io/modelmesh/mesh:1"),
        ("localhost/mesh:1", "localhost/mesh:1"),
        ("quay.io/coreos/etcd:1", "quay.io/coreos/etcd:1"),
        ("registry:5000/mesh:1", "registry:5000/mesh:1"),
    ],
)
def test_names_of_images_are_completed_as_docker_does(name: str, full: str) -> None:
    assert images.full_name(name) == full


def test_a_file_whose_content_is_the_same_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_changed(path, "text", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.stat().st_mtime_ns
    write_changed(path, "text")
    assert path.stat().st_mtime_ns == before
