"""Tools: functions of the caller's process that sandboxed code can call."""

from codemode.tools.binding import ToolBinding
from codemode.tools.decorator import default_registry, tool
from codemode.tools.encoding import encode_result

__all__ = ["ToolBinding", "default_registry", "encode_result", "tool"]
