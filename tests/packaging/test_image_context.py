"""What the image is built from, and what its name says about that."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from codemode_executor import image_context
from codemode_executor.image import DEFAULT_BASE_IMAGE, image_tag
from codemode_executor.image_context import ImageContext

RUNNER = "executor/codemode_sandbox/__main__.py"


@pytest.mark.parametrize("name", ["Dockerfile", "constraints.txt", RUNNER])
def test_digest_changes_with_each_file(name: str) -> None:
    context = ImageContext.read()
    edited = ImageContext(context.files | {name: context.files[name] + b"\n"})
    assert edited.digest() != context.digest()


def test_digest_changes_when_a_file_is_renamed() -> None:
    context = ImageContext.read()
    files = dict(context.files)
    files["executor/codemode_sandbox/renamed.py"] = files.pop(RUNNER)
    assert ImageContext(files).digest() != context.digest()


def test_tag_changes_with_requirements_and_base_image() -> None:
    tags = {image_tag(), image_tag(b"humanize\n"), image_tag(base_image="python:3.13-slim")}
    assert len(tags) == 3
    assert image_tag() == image_tag(b"", DEFAULT_BASE_IMAGE)


def test_archive_has_the_layout_of_the_repository(repository: Path) -> None:
    packed = ImageContext.read().archive(b"humanize\n", b"a certificate")
    with tarfile.open(fileobj=packed) as archive:
        contents = {entry.name: archive.extractfile(entry) for entry in archive}
    for name in ("Dockerfile", "constraints.txt", RUNNER):
        found = contents[name]
        assert found is not None
        assert found.read() == (repository / name).read_bytes()
    assert {"sandbox-image/requirements.txt", "sandbox-image/certificates/host.crt"} <= set(contents)


def test_archive_holds_nothing_but_the_recipe(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = shutil.copytree(repository / "executor/codemode_sandbox", tmp_path / "codemode_sandbox")
    for stray in (".env", "key.pem", "__main__.py.orig"):
        (runner / stray).write_text("secret")
    monkeypatch.setattr(image_context, "_RUNNER", runner)
    with tarfile.open(fileobj=ImageContext.read().archive(b"", b"")) as archive:
        names = archive.getnames()
    others = [name for name in names if not name.startswith("executor/codemode_sandbox/")]
    assert sorted(others) == [
        "Dockerfile",
        "constraints.txt",
        "sandbox-image/certificates/host.crt",
        "sandbox-image/requirements.txt",
    ]
    assert all(name.endswith(".py") for name in names if name not in others)


def test_archive_is_the_same_each_time() -> None:
    context = ImageContext.read()
    assert context.archive(b"", b"").getvalue() == context.archive(b"", b"").getvalue()


def test_wheel_builds_the_same_image_as_the_checkout(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=repository,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from codemode_executor import image; print(image.__file__, image.image_tag())",
        ],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert Path(said[0]).is_relative_to(tmp_path)
    assert said[1] == image_tag()
