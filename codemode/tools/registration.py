"""A registered tool: the object, what was said of it, and its binding once somebody asks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from codemode.tools.binding import ToolBinding
from codemode.tools.entry import find_entry
from codemode.tools.schema import require_schema

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["RegisteredTool"]


class RegisteredTool:
    """One tool of a registry, with its binding made on first use and then kept.

    Attributes:
        tool: The tool as it was registered.
    """

    def __init__(
        self,
        name: str,
        tool: Any,
        description: str | None,
        input_schema: type[BaseModel] | dict[str, Any] | None,
        output_schema: type[BaseModel] | dict[str, Any] | None,
    ) -> None:
        """Keep a tool and what was said of it.

        Raises:
            ToolSchemaError: The object cannot be called as a tool, or a schema is
                neither a model nor a dictionary.
        """
        # Cheap, and tells of a mistake where it was made: at registration.
        find_entry(name, tool)
        if input_schema is not None:
            require_schema(name, "input_schema", input_schema)
        if output_schema is not None:
            require_schema(name, "output_schema", output_schema)
        self.tool = tool
        self._name = name
        self._description = description
        self._input_schema = input_schema
        self._output_schema = output_schema
        self._binding: ToolBinding | None = None
        self._lock = threading.Lock()

    def binding(self) -> ToolBinding:
        """Return how to describe and call the tool.

        Raises:
            ToolSchemaError: Its schema is not a usable JSON Schema.
        """
        with self._lock:
            if self._binding is None:
                self._binding = ToolBinding.of(
                    self._name,
                    self.tool,
                    description=self._description,
                    input_schema=self._input_schema,
                    output_schema=self._output_schema,
                )
            return self._binding
