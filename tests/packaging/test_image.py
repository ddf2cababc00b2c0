"""The sandbox image on the real engine."""

import os
import time
from pathlib import Path

import docker
import pytest
from codemode_executor.image import ImageBuildError, build_image, find_image
from codemode_executor.image_context import ImageContext

PYTHON = "/opt/codemode/venv/bin/python"


def run(engine: docker.DockerClient, image: str, command: list[str]) -> str:
    """Run `command` as a sandbox would be run, and return what it printed; raises if it fails."""
    printed = engine.containers.run(
        image,
        command[1:],
        entrypoint=command[:1],
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "size=64m,noexec,nosuid,nodev"},
        remove=True,
        stderr=True,
    )
    assert isinstance(printed, bytes)
    return printed.decode()


def test_no_file_can_raise_privileges(engine: docker.DockerClient, sandbox_image: str) -> None:
    # As root, so that no folder is passed over; xdev keeps to the image.
    found = engine.containers.run(
        sandbox_image,
        ["/", "-xdev", "-perm", "/6000"],
        entrypoint="find",
        user="0",
        remove=True,
        network_mode="none",
    )
    assert found == b""


def test_code_runs_as_an_ordinary_user(engine: docker.DockerClient, sandbox_image: str) -> None:
    script = "import os, pwd; print(os.getresuid(), os.getgroups(), pwd.getpwuid(1000).pw_shell, os.getcwd())"
    said = run(engine, sandbox_image, [PYTHON, "-I", "-c", script])
    assert said == "(1000, 1000, 1000) [1000] /usr/sbin/nologin /tmp\n"


def test_nothing_but_tmp_is_writable(engine: docker.DockerClient, sandbox_image: str) -> None:
    # Without the read-only flag: the image's own permissions have to forbid it too.
    script = (
        "find / -xdev -writable -not -type l -not -path '/tmp*' -not -path '/var/tmp*' 2>/dev/null || true"
    )
    found = engine.containers.run(
        sandbox_image,
        ["-c", script],
        entrypoint="sh",
        remove=True,
        network_mode="none",
    ).split()
    # Docker and Debian share these with everybody by design; they are empty in a sandbox.
    assert set(found) <= {b"/run/lock", b"/var/lock"}


def test_packages_import_and_plot_without_a_warning(engine: docker.DockerClient, sandbox_image: str) -> None:
    script = (
        "import io, os; os.environ['HOME'] = '/tmp'\n"
        "import IPython, numpy, pandas, pyarrow\n"
        "import matplotlib; matplotlib.use('agg')\n"
        "import matplotlib.pyplot as plt\n"
        "frame = pandas.DataFrame({'x': [1, 2], 'y': [3, 4]}); pyarrow.Table.from_pandas(frame)\n"
        "frame.plot(x='x', y='y'); picture = io.BytesIO(); plt.savefig(picture)\n"
        "print(len(picture.getvalue()) > 1000)"
    )
    assert run(engine, sandbox_image, [PYTHON, "-W", "error", "-I", "-c", script]) == "True\n"


def test_the_font_cache_of_the_image_is_used(engine: docker.DockerClient, sandbox_image: str) -> None:
    script = (
        "mkdir -p /tmp/.cache/matplotlib && ln -s /opt/codemode/font-cache/* /tmp/.cache/matplotlib/ && "
        f"{PYTHON} -c 'import matplotlib.font_manager' && find /tmp/.cache -type f"
    )
    # Had matplotlib not taken the linked file, it would have written one of its own in its place.
    assert run(engine, sandbox_image, ["sh", "-c", script]) == ""


def test_bytecode_is_there_for_all_a_start_imports(engine: docker.DockerClient, sandbox_image: str) -> None:
    script = (
        "import pathlib, sys, IPython.core.interactiveshell, pandas\n"
        "specs = [getattr(m, '__spec__', None) for m in [*sys.modules.values()]]\n"
        "print([s.name for s in specs if s and s.cached and not pathlib.Path(s.cached).exists()])"
    )
    assert run(engine, sandbox_image, [PYTHON, "-I", "-c", script]) == "[]\n"


def test_the_image_does_not_tell_where_it_was_built(engine: docker.DockerClient, sandbox_image: str) -> None:
    history = str(engine.images.get(sandbox_image).history())
    assert "PIP_" not in history
    assert "PROXY" not in history.upper()
    assert run(
        engine, sandbox_image, ["sh", "-c", "ls -d /build* /opt/codemode/* 2>/dev/null || true"]
    ).split() == [f"/opt/codemode/{name}" for name in ("codemode_sandbox", "font-cache", "venv")]


def test_an_image_that_is_there_is_not_built_again(engine: docker.DockerClient, sandbox_image: str) -> None:
    said: list[str] = []
    began = time.monotonic()
    tag = build_image(engine, base_image=os.environ.get("BASE_IMAGE") or None, progress=said.append)
    assert tag == sandbox_image
    assert said == [f"{tag} is up to date"]
    assert time.monotonic() - began < 2


def test_the_image_of_the_present_sources_is_found(
    engine: docker.DockerClient, sandbox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_image(engine) == sandbox_image
    context = ImageContext.read()
    edited = ImageContext(context.files | {"executor/codemode_sandbox/new.py": b""})
    monkeypatch.setattr(ImageContext, "read", lambda: edited)
    assert find_image(engine) is None


def test_a_requirement_that_does_not_exist_is_named(engine: docker.DockerClient, sandbox_image: str) -> None:
    with pytest.raises(ImageBuildError, match="codemode-no-such-package") as failure:
        build_image(
            engine,
            base_image=os.environ.get("BASE_IMAGE") or None,
            requirements=b"codemode-no-such-package==1\n",
        )
    assert "requirements.txt" in failure.value.step
    assert "correct it" in str(failure.value)


def test_a_base_image_that_cannot_be_had_says_what_to_do(engine: docker.DockerClient) -> None:
    with pytest.raises(ImageBuildError, match="make base-image"):
        build_image(engine, base_image="codemode.invalid/no/such:image")


def test_the_checkout_has_what_a_build_by_hand_needs(repository: Path) -> None:
    assert (repository / "sandbox-image/requirements.txt").is_file()
    assert (repository / "sandbox-image/certificates").is_dir()
