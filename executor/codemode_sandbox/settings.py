"""What the executor tells a sandbox when it starts it, as one JSON argument."""

import json
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one sandbox; they hold for its whole life.

    Attributes:
        site: Directories with packages, added to `sys.path` in this order.
        preload: Modules the supervisor imports, so that every interpreter has them already.
        work: The interpreters' working directory. It and `home` are made anew after every reset.
        home: The interpreters' `HOME`.
        wipe: Directories emptied by a reset.
        rlimits: Limits of every interpreter, by the part of `resource.RLIMIT_*` after the underscore.
        limits: The limits of the sandbox by name, for words about them.
        environment: Environment of every interpreter, complete.
        font_cache: Directory with matplotlib's list of fonts, linked into every new home; or empty.
        memory_bytes: Bound on the sum over all processes, watched here; None where a control group does it.
        network_bytes: Bound on what network connections hold, watched here; None where that counts as memory.
        tmp_inodes: Bound on files and directories in `wipe`, watched here; None where the mount does it.
        meet_at: Where to listen for the executor, see `meeting`; or empty.
        meet_uid: The user that the executor runs as.
    """

    site: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    work: str = "/tmp/work"
    home: str = "/tmp/home"
    wipe: tuple[str, ...] = ("/tmp", "/dev/shm", "/dev/mqueue")
    rlimits: dict[str, int] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    font_cache: str = ""
    memory_bytes: int | None = None
    network_bytes: int | None = None
    tmp_inodes: int | None = None
    meet_at: str = ""
    meet_uid: int = 0

    def to_json(self) -> str:
        """Encode for the command line of a sandbox. Never put a secret here: `ps` shows it."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Decode what `to_json` made."""
        raw = json.loads(text)
        for name in ("site", "preload", "wipe"):
            raw[name] = tuple(raw.get(name, ()))
        return cls(**raw)
