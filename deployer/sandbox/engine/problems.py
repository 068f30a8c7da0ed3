"""How a command ends badly."""

from __future__ import annotations


class CommandFailed(Exception):
    """An error of the command itself: one `error:` line on stderr and this exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Refused(Exception):
    """A step could not be made or a registration is wrong: a diagnostic on the resource's URN, and the deployment ends.

    `told` means that the diagnostic has been given already.
    """

    def __init__(self, message: str, urn: str = "", *, told: bool = False) -> None:
        super().__init__(message)
        self.urn, self.told = urn, told


class ProviderError(Exception):
    """A provider's call failed. `unknown_state`: it may have done something all the same."""


class InitFailed(ProviderError):
    """The resource was made or changed, but it is not ready: it has an id, and reasons."""

    def __init__(
        self, id_: str, reasons: list[str], outputs: dict[str, object], inputs: dict[str, object] | None
    ) -> None:
        count = len(reasons)
        lines = "".join(f"\t* {reason}\n" for reason in reasons)
        super().__init__(f"{count} error{'s' if count != 1 else ''} occurred:\n{lines}\n")
        self.id, self.reasons, self.outputs, self.inputs = id_, reasons, outputs, inputs
