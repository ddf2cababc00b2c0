"""Where sandboxes come from."""

from codemode_executor.backends.base import Backend, Sandbox
from codemode_executor.backends.select import choose_backend

__all__ = ["Backend", "Sandbox", "choose_backend"]
