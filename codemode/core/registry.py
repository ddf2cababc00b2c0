"""The live objects that an application offers: tools, agents, teams and flows.

Nothing here knows a framework. Sandboxed code can call the tools; agents,
teams and flows are kept for the application and its integrations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codemode.core.components import Components
from codemode.core.context import (
    RuntimeContext,
    context_of_registry,
    get_current_context,
    reset_context,
    set_context_of_registry,
)
from codemode.errors import ComponentAlreadyExistsError, ComponentNotFoundError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from codemode.tools.binding import ToolBinding
    from codemode.tools.registration import RegisteredTool

__all__ = [
    "ComponentAlreadyExistsError",
    "ComponentNotFoundError",
    "ComponentRegistry",
    "RuntimeContext",
    "get_current_context",
    "reset_context",
]


class ComponentRegistry:
    """Tools, agents, teams and flows by name, and the context of the current request.

    Components are shared by all threads and tasks; the context is each task's and
    each thread's own.
    """

    def __init__(self) -> None:
        """Make an empty registry."""
        self._tools = Components("tool")
        self._agents = Components("agent")
        self._teams = Components("team")
        self._flows = Components("flow")
        # Stands for this registry in the ContextVar. The registry itself, or its
        # id(), would be kept alive by contexts, or be given to another registry.
        self._context_key = object()

    # --- tools ---

    def register_tool(
        self,
        name: str,
        tool: Any,
        description: str | None = None,
        input_schema: type[BaseModel] | dict[str, Any] | None = None,
        output_schema: type[BaseModel] | dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Register a tool that sandboxed code may call.

        Args:
            name: Unique name, printable and at most 128 characters.
            tool: A function, or an object with ``run``, ``run_async`` or
                ``run_with_context``, or a tool of LangChain or CrewAI.
            description: What it does; by default the tool's own description or
                docstring.
            input_schema: Pydantic model, or JSON Schema, of its arguments; by
                default derived from its signature and type hints.
            output_schema: The same for its result; informs, is not enforced.
            overwrite: Whether it may replace a tool of the same name.

        Raises:
            ComponentAlreadyExistsError: The name is taken and ``overwrite`` is False.
            ValueError: The name is not valid (`InvalidComponentError`), or the
                object cannot be called as a tool (`ToolSchemaError`).
        """
        # Imported here because the tools import this package for its context.
        from codemode.tools.registration import RegisteredTool

        self._tools.check(name, tool)
        registered = RegisteredTool(name, tool, description, input_schema, output_schema)
        self._tools.add(name, registered, overwrite=overwrite)

    def get_tool(self, name: str) -> Any:
        """Return the tool, as it was registered.

        Raises:
            ComponentNotFoundError: There is no such tool.
        """
        registered: RegisteredTool = self._tools.get(name)
        return registered.tool

    def unregister_tool(self, name: str) -> Any:
        """Take a tool out of the registry, and return it.

        Raises:
            ComponentNotFoundError: There is no such tool.
        """
        registered: RegisteredTool = self._tools.remove(name)
        return registered.tool

    @property
    def tools(self) -> dict[str, Any]:
        """All tools, by name; a copy."""
        return {name: registered.tool for name, registered in self._tools.as_dict().items()}

    def tool_binding(self, name: str) -> ToolBinding:
        """Return how to describe and call a tool.

        It is made when first asked for and then kept: deriving a schema costs about
        a millisecond, which thousands of tools that nobody calls should not cost.

        Raises:
            ComponentNotFoundError: There is no such tool.
            ToolSchemaError: Its schema is not a usable JSON Schema.
        """
        registered: RegisteredTool = self._tools.get(name)
        return registered.binding()

    # --- agents, teams, flows ---

    def register_agent(self, name: str, agent: Any, overwrite: bool = False) -> None:
        """Register an agent.

        Raises:
            ComponentAlreadyExistsError: The name is taken and ``overwrite`` is False.
            ValueError: The name is not valid, or the agent is None.
        """
        self._agents.add(name, agent, overwrite=overwrite)

    def get_agent(self, name: str) -> Any:
        """Return an agent.

        Raises:
            ComponentNotFoundError: There is no such agent.
        """
        return self._agents.get(name)

    def unregister_agent(self, name: str) -> Any:
        """Take an agent out of the registry, and return it.

        Raises:
            ComponentNotFoundError: There is no such agent.
        """
        return self._agents.remove(name)

    @property
    def agents(self) -> dict[str, Any]:
        """All agents, by name; a copy."""
        return self._agents.as_dict()

    def register_team(self, name: str, team: Any, overwrite: bool = False) -> None:
        """Register a team, such as a crew of agents.

        Raises:
            ComponentAlreadyExistsError: The name is taken and ``overwrite`` is False.
            ValueError: The name is not valid, or the team is None.
        """
        self._teams.add(name, team, overwrite=overwrite)

    def get_team(self, name: str) -> Any:
        """Return a team.

        Raises:
            ComponentNotFoundError: There is no such team.
        """
        return self._teams.get(name)

    def unregister_team(self, name: str) -> Any:
        """Take a team out of the registry, and return it.

        Raises:
            ComponentNotFoundError: There is no such team.
        """
        return self._teams.remove(name)

    @property
    def teams(self) -> dict[str, Any]:
        """All teams, by name; a copy."""
        return self._teams.as_dict()

    def register_flow(self, name: str, flow: Any, overwrite: bool = False) -> None:
        """Register a flow.

        Raises:
            ComponentAlreadyExistsError: The name is taken and ``overwrite`` is False.
            ValueError: The name is not valid, or the flow is None.
        """
        self._flows.add(name, flow, overwrite=overwrite)

    def get_flow(self, name: str) -> Any:
        """Return a flow.

        Raises:
            ComponentNotFoundError: There is no such flow.
        """
        return self._flows.get(name)

    def unregister_flow(self, name: str) -> Any:
        """Take a flow out of the registry, and return it.

        Raises:
            ComponentNotFoundError: There is no such flow.
        """
        return self._flows.remove(name)

    @property
    def flows(self) -> dict[str, Any]:
        """All flows, by name; a copy."""
        return self._flows.as_dict()

    def clear(self) -> None:
        """Take out every component; contexts stay as they are."""
        for components in (self._tools, self._agents, self._teams, self._flows):
            components.clear()

    # --- context ---

    def set_context(self, context: RuntimeContext) -> None:
        """Set the context of this registry for the current async task, or thread.

        Raises:
            TypeError: It is not a RuntimeContext.
        """
        if not isinstance(context, RuntimeContext):
            raise TypeError(
                f"set_context() takes a RuntimeContext, not {type(context).__name__}; "
                "make one with RuntimeContext(variables={...}), or call clear_context()"
            )
        set_context_of_registry(self._context_key, context)

    def get_context(self) -> RuntimeContext | None:
        """Return the context of this registry in the current async task, or thread.

        In a tool it is the context of the execution that calls the tool.

        Returns:
            The context, or None if there is none.
        """
        return context_of_registry(self._context_key)

    def clear_context(self) -> None:
        """Clear the context of this registry in the current async task, or thread."""
        set_context_of_registry(self._context_key, None)

    def __repr__(self) -> str:
        """Return how many components of each kind there are."""
        return (
            f"<ComponentRegistry {len(self.tools)} tools, {len(self.agents)} agents, "
            f"{len(self.teams)} teams, {len(self.flows)} flows>"
        )
