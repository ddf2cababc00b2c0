"""What the sandbox image is built from: the files, their digest, and the archive sent to the engine.

The archive has the layout of the repository, so that one `Dockerfile` serves `docker build .` in a checkout
and `codemode-executor image build` from an installed wheel, which carries copies of the files (see
`force-include` in `pyproject.toml`).
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# `codemode_sandbox` lies beside this package in a checkout and in site-packages alike.
_RUNNER = _PACKAGE.parent / "codemode_sandbox"
_IN_WHEEL = _PACKAGE / "sandbox_image"
_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent.parent


@dataclass(frozen=True, slots=True)
class ImageContext:
    """The files that decide what the image is, as they were at one moment.

    Attributes:
        files: Content by path in the repository: the Dockerfile, the constraints and the runner's sources.
    """

    files: dict[str, bytes]

    @classmethod
    def read(cls) -> "ImageContext":
        """Read the files of this installation.

        Raises:
            FileNotFoundError: The installation lacks one of them.
        """
        files = {name: (_FOLDER / name).read_bytes() for name in ("Dockerfile", "constraints.txt")}
        for path in _RUNNER.rglob("*.py"):
            files[f"executor/codemode_sandbox/{path.relative_to(_RUNNER).as_posix()}"] = path.read_bytes()
        return cls(files)

    def digest(self, *more: bytes) -> str:
        """Digest the files, and `more` that decides about the image, as 64 hexadecimal digits.

        Certificates, proxies and package indexes are no part of it: they decide how packages are reached,
        not which.
        """
        digest = hashlib.sha256()
        for part in (
            *more,
            *(part for item in sorted(self.files.items()) for part in (item[0].encode(), item[1])),
        ):
            # With each length before its part, no two lists of parts run together into the same bytes.
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    def archive(self, requirements: bytes, certificates: bytes) -> io.BytesIO:
        """Pack the build context, with PEM `certificates` and a `requirements.txt`; both may be empty.

        The engine keys its build cache on names, modes and contents, so these are all the archive holds: the
        same input gives the same bytes, whoever packs it and under whatever umask the files were made.
        """
        files = self.files | {
            "sandbox-image/requirements.txt": requirements,
            "sandbox-image/certificates/host.crt": certificates,
        }
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, body in sorted(files.items()):
                entry = tarfile.TarInfo(name)
                entry.size = len(body)
                entry.mode = 0o644
                archive.addfile(entry, io.BytesIO(body))
        packed.seek(0)
        return packed
