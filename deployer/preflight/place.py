"""What the checks of one place (one identity in one region of one cloud) are about, and how they ask."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from deployer.cloud_clients import AwsClients, AzureClients, Clients
from deployer.failures import RIGHTS
from deployer.member import Member
from deployer.plan import VM_TYPES
from deployer.preflight.standing import Standing
from stacks.args import ParticipantArgs
from stacks.names import Cloud

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Wanted:
    """One participant: what it is made from, and how many of each Pulumi type are going to be created.

    `others`: where the wanted size can't be had, `up` has other places to try.
    `standing`: its machine that is going to be replaced or resized.
    """

    member: Member
    args: ParticipantArgs
    creates: Counter[str] = field(default_factory=Counter)
    others: bool = False
    standing: Standing | None = None

    @property
    def name(self) -> str:
        """The participant's name."""
        return self.member.name

    @property
    def makes_machine(self) -> bool:
        """Whether a machine will be created, the first one or in another's place."""
        return any(self.creates[kind] for kind in VM_TYPES)

    @property
    def needs_room(self) -> bool:
        """Whether its size must be had: a machine will be created, or resized."""
        return self.makes_machine or self.standing is not None

    @property
    def zone(self) -> str | None:
        """Where its size must be had: in the zone that is wanted, else in the one where its machine and disk are."""
        return self.args.zone or (self.standing.zone if self.standing is not None else None)


@dataclass(frozen=True)
class Place:
    """One account or subscription, in one region, and who is going to be made there."""

    cloud: Cloud
    region: str
    owner: str
    access: Any
    clients: Clients
    wanted: tuple[Wanted, ...]
    _answers: dict[str, Future[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def once(self, question: str, ask: Callable[[], Answer]) -> Answer:
        """What several checks want to know, asked of the cloud once; no answer is the answer for all of them too."""
        with self._lock:
            first = question not in self._answers
            answer: Future[Answer] = self._answers.setdefault(question, Future())
        if first:
            try:
                answer.set_result(ask())
            except BaseException as error:
                answer.set_exception(error)
        return answer.result()

    @property
    def title(self) -> str:
        """For people."""
        return f"{'account' if self.cloud == 'aws' else 'subscription'} {self.owner}, {self.region}"

    def makes(self, *types: str) -> int:
        """How many resources of these Pulumi types will be created here."""
        return sum(one.creates[kind] for one in self.wanted for kind in types)

    def aws(self, service: str) -> Any:
        """A boto3 client."""
        return cast(AwsClients, self.clients).client(service)

    @property
    def azure(self) -> AzureClients:
        """Azure's clients."""
        return cast(AzureClients, self.clients)


class NotAsked(Exception):
    """A question was not answered, which stops nothing. `right`: what the credentials lack, where that is why."""

    def __init__(self, why: str, right: str = "") -> None:
        super().__init__(why)
        self.right = right


@contextmanager
def asking(right: str) -> Iterator[None]:
    """Round a call of a cloud's client: no right, no answer, no network become `NotAsked`.

    Args:
        right: the cloud's own name of what the call needs, `ec2:DescribeRegions`.
    """
    try:
        yield
    except Exception as error:
        code = _code(error)
        if code in RIGHTS or getattr(error, "status_code", None) == 403:
            raise NotAsked(f"these credentials lack {right}", right) from error
        if code is None and not type(error).__module__.startswith(("botocore", "azure", "boto3")):
            raise
        text = str(error).strip().splitlines()
        raise NotAsked(f"{right}: {text[0] if text else type(error).__name__}") from error


def _code(error: Exception) -> str | None:
    """The cloud's error code: botocore's in `response`, azure-core's in `error.code`."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    inner = getattr(error, "error", None)
    code = getattr(inner, "code", None)
    return str(code) if code else None
