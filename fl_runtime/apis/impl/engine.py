"""What `fl_ctx.get_engine()` gives: the components of this process, the sites, new contexts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_runtime.apis.client import Client
from fl_runtime.apis.event_type import EventType
from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_constant import FLContextKey
from fl_runtime.apis.fl_context import FLContext, FLContextManager

log = logging.getLogger("fedspan.job")


class Workspace:
    """Where the job's code lies, and where it may write."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle

    def get_root_dir(self) -> str:
        return str(self._bundle)

    def get_run_dir(self, job_id: str = "") -> str:
        return str(self._bundle)

    def get_app_dir(self, job_id: str = "") -> str:
        return str(self._bundle)

    def get_app_config_dir(self, job_id: str = "") -> str:
        return str(self._bundle)

    def get_app_custom_dir(self, job_id: str = "") -> str:
        return str(self._bundle)


class Engine:
    """
    Args:
        sites: who takes part; empty on a site.
        fatal: told the reason when a component panics.
    """

    def __init__(
        self,
        identity: str,
        job_id: str,
        bundle: Path,
        components: dict[str, Any],
        sites: Callable[[], list[str]],
        fatal: Callable[[str], None],
    ) -> None:
        self._components = components
        self._sites = sites
        self._fatal = fatal
        self.workspace = Workspace(bundle)
        self.fl_ctx_mgr = FLContextManager(
            self,
            identity,
            job_id,
            {
                FLContextKey.APP_ROOT: str(bundle),
                FLContextKey.WORKSPACE_ROOT: str(bundle),
                FLContextKey.WORKSPACE_OBJECT: self.workspace,
            },
        )

    def new_context(self) -> FLContext:
        return self.fl_ctx_mgr.new_context()

    def get_clients(self) -> list[Client]:
        return [Client(name) for name in self._sites()]

    def get_client_from_name(self, name: str) -> Client | None:
        return Client(name) if name in self._sites() else None

    def validate_targets(self, client_names: list[str]) -> tuple[list[Client], list[str]]:
        """Those that take part, and the names that nobody has."""
        known = self._sites()
        return [Client(name) for name in client_names if name in known], [n for n in client_names if n not in known]

    def get_component(self, component_id: str) -> Any:
        """None when there is none of that id."""
        return self._components.get(component_id)

    def get_all_components(self) -> dict[str, Any]:
        return self._components

    def add_component(self, component_id: str, component: Any) -> None:
        self._components[component_id] = component

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_cell(self) -> None:
        return None

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Every component hears it, in the order of job.yml; what one raises is logged and stops nothing."""
        for component in list(dict.fromkeys(self._components.values())):
            if isinstance(component, FLComponent):
                try:
                    component.handle_event(event_type, fl_ctx)
                except Exception:
                    log.exception("%s failed at the event %s", component.name, event_type)
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self._fatal(str(fl_ctx.get_prop(FLContextKey.EVENT_DATA) or "a component has given up"))
