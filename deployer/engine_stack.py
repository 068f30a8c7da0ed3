"""The Automation API's workspace and stack, without the commands whose answers nobody here needs.

After an update the SDK asks for the outputs twice and for the history, before anything it selects the stack: four more
processes of the engine for each update. Every command names its stack, so none has to be selected; outputs are in the
checkpoint, which is exported anyway; what happened was told by events.

The SDK also writes a checkpoint that it imports, with its secrets in clear, into a file that stays if the engine fails.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone

from pulumi import automation as auto
from pulumi.automation._stack import StackInitMode  # what the public constructor takes, and no public module has

from deployer.engine_command import EngineCommand

_UNTOLD = auto.UpdateSummary("", datetime.fromtimestamp(0, timezone.utc), "", {}, {}, "")


class Workspace(auto.LocalWorkspace):
    """A folder for one stack."""

    def select_stack(self, stack_name: str) -> None:
        """Nothing: whether there is such a stack, its export tells."""

    def import_stack(self, stack_name: str, state: auto.Deployment) -> None:
        """Put a checkpoint in the place of the stack's own; it goes through a pipe, and into no file."""
        command = self.pulumi_command
        assert isinstance(command, EngineCommand), "made with one"
        home = {"PULUMI_HOME": self.pulumi_home} if self.pulumi_home else {}
        given = json.dumps({"version": state.version, "deployment": state.deployment})
        command.run(["stack", "import", "--stack", stack_name], self.work_dir, {**home, **self.env_vars}, given=given)


class Stack(auto.Stack):
    """One stack, whether it is there or not. Results of operations tell neither outputs nor a summary."""

    def __init__(self, name: str, workspace: Workspace) -> None:
        super().__init__(name, workspace, StackInitMode.SELECT)

    def outputs(self) -> auto.OutputMap:
        """Not asked for; they are in the checkpoint."""
        return {}

    def info(self, show_secrets: bool | None = None) -> auto.UpdateSummary | None:
        """Not asked for."""
        return _UNTOLD
