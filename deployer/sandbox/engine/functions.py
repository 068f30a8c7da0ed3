"""Functions that the engine itself answers: what the state says of a resource, and the outputs of other stacks."""

from __future__ import annotations

from collections.abc import Callable

from .problems import ProviderError
from .state import Resource
from .values import Properties

Outputs = Callable[[str], Properties]  # another stack's name -> its outputs


class Builtins:
    def __init__(self, find: Callable[[str], Resource | None], outputs: Outputs) -> None:
        self._find, self._outputs = find, outputs

    def invoke(self, token: str, args: Properties) -> Properties:
        """Raises ProviderError for what is not there."""
        if token == "pulumi:pulumi:getResource":  # noqa: S105 - a function's token, not a secret
            urn = str(args.get("urn", ""))
            resource = self._find(urn)
            if resource is None:
                raise ProviderError(f"unknown resource {urn}")
            return {"urn": resource.urn, "id": resource.id, "state": resource.outputs}
        if token == "pulumi:pulumi:readStackOutputs":  # noqa: S105 - see above
            name = str(args.get("name", ""))
            return {"name": name, "outputs": self._outputs(name)}
        raise ProviderError(f"unrecognized function name: '{token}'")
