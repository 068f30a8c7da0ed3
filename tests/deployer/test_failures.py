"""What a cloud or an engine says becomes an error with its participant, cause and next command."""

from __future__ import annotations

import pytest

from deployer.crew import Several, engines_at_once, together
from deployer.engine_events import Diagnostic
from deployer.errors import (
    BusyError,
    CapacityError,
    CloudError,
    CredentialsError,
    FedspanError,
    Interrupted,
    RefusedError,
    SpecError,
)
from deployer.failures import from_diagnostics
from tests.deployer.decision_samples import URN


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("api error InsufficientInstanceCapacity: no capacity in eu-central-1a", CapacityError, 8),
        ('Status=409 Code="SkuNotAvailable" Message="not available in westeurope"', CapacityError, 8),
        ('Code="ZonalAllocationFailed"', CapacityError, 8),
        ("VcpuLimitExceeded: You have requested more vCPU capacity", CapacityError, 8),
        ('Code="OperationNotAllowed" Message="exceeding approved Total Regional Cores quota"', CapacityError, 8),
        ("ExpiredToken: The security token included in the request is expired", CredentialsError, 5),
        ("UnauthorizedOperation: You are not authorized", CredentialsError, 5),
        ('Code="AuthorizationFailed"', CredentialsError, 5),
        ("resource violates plan: properties changed", RefusedError, 13),
        ("DependencyViolation: resource has a dependent object", CloudError, 7),
    ],
)
def test_what_a_cloud_says_becomes_the_right_error(text: str, kind: type[FedspanError], code: int) -> None:
    error = from_diagnostics("site-1", [Diagnostic(URN, text)], log="x.log")
    assert type(error) is kind
    assert error.exit_code == code
    assert error.participant == "site-1"
    assert text.split()[0] in str(error)
    assert error.next_step


def test_a_failure_names_participant_resource_cause_next_command_and_log() -> None:
    error = from_diagnostics("site-1", [Diagnostic(URN, "boom")], log="/logs/site-1.log")
    assert str(error) == (
        "site-1: ec2.Instance site-1-vm failed: boom\n  next: fedspan up site-1\n  log: /logs/site-1.log"
    )


def test_a_locked_stack_a_wrong_passphrase_and_a_damaged_checkpoint_are_told_apart() -> None:
    locked = from_diagnostics("site-1", [], said="stderr: error: the stack is currently locked by 1 lock(s).")
    assert isinstance(locked, BusyError)
    assert "passphrase" in str(from_diagnostics("site-1", [], said="error: incorrect passphrase"))
    assert "damaged" in str(from_diagnostics("site-1", [], said="error: failed to load checkpoint"))


def test_no_traceback_of_a_program_reaches_the_user() -> None:
    said = "python inline source runtime error: wrong\nTraceback (most recent call last):\n  File x\nValueError: wrong"
    assert "File x" not in str(from_diagnostics("site-1", [Diagnostic("", said)]))


def test_several_failures_are_told_together_with_the_first_ones_code() -> None:
    errors: dict[str, BaseException] = {"a": CapacityError("no room", participant="a"), "b": SpecError("bad")}
    error = together(errors, 3)
    assert isinstance(error, Several)
    assert error.exit_code == 8
    assert "2 of 3 participants failed" in str(error)
    assert "a: no room" in str(error)
    assert isinstance(together({**errors, "c": Interrupted("stopped")}, 3), Interrupted)
    assert together({"a": errors["a"]}, 3) is errors["a"]


def test_running_engines_are_bounded_by_memory() -> None:
    assert engines_at_once("real", 2400, 10) == 3
    assert engines_at_once("real", 100, 10) == 1
    assert engines_at_once("sandbox", 64000, 4) == 4
