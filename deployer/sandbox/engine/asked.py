"""What a command line asks of a deployment, and what the user is told before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from .deployment import Kind
from .generator import Options
from .state import Pending


@dataclass
class Request:
    """What the command line asks for."""

    verb: str  # update, preview, refresh, destroy
    preview: bool = False
    client: str = ""
    event_log: str = ""
    parallel: int = 0
    refresh: bool = False
    clear_pending_creates: bool = False
    continue_on_error: bool = False
    expect_no_changes: bool = False
    debug: bool = False
    suppress_outputs: bool = False
    message: str = ""
    exec_kind: str = ""
    plan: str = ""
    save_plan: str = ""
    run_program: bool = False
    options: Options = field(default_factory=Options)
    flags: list[str] = field(default_factory=list)  # the flags given, for the history

    @property
    def kind(self) -> Kind:
        only = self.verb == "refresh"
        return Kind(self.verb == "update", self.refresh or only, only)


def pending_text(pending: list[Pending]) -> str:
    listed = "".join(f"  * {p.resource.urn}, interrupted while {p.type}\n" for p in pending)
    return (
        f"Attempting to deploy or update resources with {len(pending)} pending operations from previous deployment.\n"
        f"{listed}"
        "These resources are in an unknown state because the Pulumi CLI was interrupted while waiting for changes to "
        "these resources to complete. You should confirm whether or not the operations listed completed successfully "
        "by checking the state of the appropriate provider. For example, if you are using AWS, you can confirm using "
        "the AWS Console.\n\n"
        "Once you have confirmed the status of the interrupted operations, you can repair your stack using "
        "`pulumi refresh` which will refresh the state from the provider you are using and clear the pending "
        "operations if there are any.\n\n"
        "Note that `pulumi refresh` will need to be run interactively to clear pending CREATE operations.\n"
    )
