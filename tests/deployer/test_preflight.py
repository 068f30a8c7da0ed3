"""What checks conclude: pure decisions, and questions that are not answered."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployer.engine_home import EngineHome
from deployer.errors import CapacityError, CredentialsError, PreflightError
from deployer.preflight import azure_provider, engine, roles
from deployer.preflight.clock import judged
from deployer.preflight.credentials import aws_expiry, expiry, token_file_expiry
from deployer.preflight.model import Finding, refuse
from deployer.preflight.place import NotAsked, asking
from deployer.preflight.quota import aws_code
from deployer.preflight.run import _collect
from deployer.preflight.size import _sku
from deployer.preflight.view import lines, summary

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("minutes", "level", "word"),
    [
        (-5, "refused", "have expired"),
        (5, "refused", "expire in 5 min"),
        (30, "warning", "30 min"),
        (600, "ok", "last"),
    ],
)
def test_credentials_that_end_while_up_works_are_refused(minutes: int, level: str, word: str) -> None:
    (found,) = expiry("account 1", NOW + timedelta(minutes=minutes), "log in again", NOW)
    assert (found.level, found.error) == (level, CredentialsError if level == "refused" else PreflightError)
    assert word in found.what
    assert list(expiry("account 1", None, "")) == []


def test_where_the_expiry_is_known_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2026-11-21T09:30:00Z")
    assert aws_expiry(SimpleNamespace(method="env")) == NOW + timedelta(minutes=30)
    assert aws_expiry(SimpleNamespace(method="shared-credentials-file")) is None
    assert aws_expiry(SimpleNamespace(method="sso", _expiry_time=NOW)) == NOW
    claims = base64.urlsafe_b64encode(json.dumps({"exp": NOW.timestamp()}).encode()).decode().rstrip("=")
    (tmp_path / "token").write_text(f"e30.{claims}.x")
    environ = {"ARM_USE_OIDC": "true", "ARM_OIDC_TOKEN_FILE_PATH": str(tmp_path / "token")}
    assert token_file_expiry(environ) == NOW
    assert token_file_expiry({}) is None
    (tmp_path / "token").write_text("no token")
    assert token_file_expiry(environ) is None


@pytest.mark.parametrize(("off", "level"), [(2, "ok"), (-2, "ok"), (90, "warning"), (-600, "refused")])
def test_a_wrong_clock_is_told(off: int, level: str) -> None:
    found = judged(NOW, NOW + timedelta(seconds=off))
    assert found.level == level
    if off == -600:
        assert "600 s behind" in found.what


@pytest.mark.parametrize(
    ("size", "spot", "code"),
    [
        ("m7i.large", False, "L-1216C47A"),
        ("t3.micro", True, "L-34B43A08"),
        ("g5.xlarge", False, "L-DB2E81BA"),
        ("p5.4xlarge", False, "L-417A185B"),
        ("p4d.24xlarge", True, "L-7212CCBC"),
        ("p5.48xlarge", True, None),
        ("dl2q.24xlarge", False, None),
        ("inf2.xlarge", False, None),
        ("x2idn.16xlarge", False, None),
    ],
)
def test_each_family_has_its_quota_or_is_said_to_be_unknown(size: str, spot: bool, code: str | None) -> None:
    assert aws_code(size, spot) == code


def test_the_provider_of_the_daily_shutdown_is_asked_for_only_where_a_machine_ends() -> None:
    def found(**args: object) -> list[Finding]:
        wanted = SimpleNamespace(name="site-1", args=SimpleNamespace(encryption_at_host=False, **args))
        states = {"/providers/Microsoft.DevTestLab": "NotRegistered"}
        azure = SimpleNamespace(get=lambda path, _: ({"registrationState": states.get(path, "Registered")}, {}))
        place = SimpleNamespace(cloud="azure", owner="sub", azure=azure, wanted=(wanted,))
        return [one for one in azure_provider.check(place) if one.level != "ok"]  # type: ignore[arg-type]

    assert found(expires=None, deallocate_at=None) == []
    (later,) = found(expires="2026-11-30T05:00:00Z", deallocate_at=None)
    assert (later.level, "on the last day of site-1" in later.why) == ("warning", True)
    (today,) = found(expires="2026-11-30T05:00:00Z", deallocate_at="0500")
    assert (today.level, today.next_step) == (
        "refused",
        "az provider register --namespace Microsoft.DevTestLab --subscription sub --wait",
    )


CONTRIBUTOR = {
    "actions": ["*"],
    "notActions": ["Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write"],
}


def test_who_may_give_no_rights_may_not_let_a_machine_deallocate_itself() -> None:
    def found(*permissions: dict[str, list[str]], creates: int = 1) -> list[Finding]:
        wanted = SimpleNamespace(name="site-1", creates=Counter({roles.ASSIGNMENT: creates}))
        azure = SimpleNamespace(get=lambda path, _: ({"value": list(permissions)}, {}))
        return list(roles.check(SimpleNamespace(cloud="azure", owner="sub", azure=azure, wanted=(wanted,))))  # type: ignore[arg-type]

    (refused,) = found(CONTRIBUTOR)
    assert refused.level == "refused"
    assert "site-1 asks for self_deallocate" in refused.why
    assert "roleAssignments/write and Microsoft.Authorization/roleAssignments/delete" in refused.why
    assert found(CONTRIBUTOR, creates=0) == []  # it stands already
    administrator = {"actions": ["microsoft.authorization/roleassignments/*"], "notActions": []}
    assert [one.level for one in found(CONTRIBUTOR, administrator)] == ["ok"]
    (half,) = found({"actions": [roles.GIVE], "notActions": []})
    assert "credentials lack Microsoft.Authorization/roleAssignments/delete (" in half.why


def test_restrictions_of_a_subscription_close_zones_or_the_whole_region() -> None:
    def restriction(kind: str, zones: list[str]) -> SimpleNamespace:
        info = SimpleNamespace(zones=zones)
        return SimpleNamespace(type=kind, reason_code="NotAvailableForSubscription", restriction_info=info)

    def sku(*restrictions: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(location_info=[SimpleNamespace(zones=["3", "1", "2"])], restrictions=list(restrictions))

    assert _sku(sku()).zones == ("1", "2", "3")
    assert _sku(sku(restriction("Zone", ["2"]))).zones == ("1", "3")
    closed = _sku(sku(restriction("Location", [])))
    assert (closed.zones, closed.regional, closed.restricted) == ((), False, "NotAvailableForSubscription")


def test_one_refusal_is_the_error_of_its_kind_and_several_are_told_together() -> None:
    quota = Finding("quota", "4 of 5 used, 2 needed", "refused", "site-1", "one left", "ask", CapacityError)
    region = Finding("region", "no such region", "refused")
    refuse([Finding("x", "fine"), Finding("x", "?", "unknown"), Finding("x", "!", "warning")])
    with pytest.raises(CapacityError, match="site-1: 4 of 5 used, 2 needed: one left; checked before anything") as one:
        refuse([quota])
    assert one.value.next_step == "ask"
    with pytest.raises(PreflightError, match="2 things stand in the way") as both:
        refuse([quota, region])
    assert both.value.exit_code == 18
    assert "no such region" in str(both.value)
    with pytest.raises(PreflightError) as same:
        refuse([quota, quota])
    assert same.value.exit_code == 8
    assert PreflightError.exit_code == 18


def test_a_question_without_an_answer_stops_nothing() -> None:
    from botocore.exceptions import ClientError, EndpointConnectionError

    def denied() -> list[Finding]:
        with asking("servicequotas:GetServiceQuota"):
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetServiceQuota")

    def unreachable() -> list[Finding]:
        with asking("ec2:DescribeVpcs"):
            raise EndpointConnectionError(endpoint_url="https://ec2.example")

    def broken() -> list[Finding]:
        with asking("ec2:DescribeVpcs"):
            raise KeyError("Vpcs")

    (found,) = _collect("quota", denied)
    assert (found.level, found.why) == ("unknown", "these credentials lack servicequotas:GetServiceQuota")
    assert "fedspan policy" in found.next_step
    (found,) = _collect("counts", unreachable)
    assert found.level == "unknown"
    assert "https://ec2.example" in found.why
    (found,) = _collect("counts", broken)
    assert (found.level, found.why) == ("unknown", "the check itself failed, KeyError: 'Vpcs'")
    with pytest.raises(NotAsked):
        denied()


def test_what_is_in_order_is_only_counted() -> None:
    findings = [Finding("a", "fine"), Finding("b", "look", "warning", next_step="do it"), Finding("c", "?", "unknown")]
    assert summary(findings) == "checked before anything is made: 1 in order, 1 to look at, 1 not asked"
    assert list(lines(findings)) == ["   !  b: look", "        next: do it", "   ?  c: ?"]
    assert len(list(lines(findings, everything=True))) == 4


def test_a_passphrase_that_others_can_read_and_a_lost_one_are_told(tmp_path: Path) -> None:
    home = EngineHome(tmp_path / "stacks", "fedspan-toy")
    levels = [one.level for one in engine.check_backend(home)]
    assert levels == ["ok", "ok"]
    home.ensure()
    home.passphrase_path.chmod(0o644)
    (told,) = [one for one in engine.check_backend(home) if one.subject == "passphrase"]
    assert (told.level, told.next_step) == ("warning", f"chmod 600 {home.passphrase_path}")
    home.work_dir("a").mkdir(parents=True)
    (home.work_dir("a") / "Pulumi.a.yaml").write_text("x: y\n")
    home.passphrase_path.unlink()
    (told,) = [one for one in engine.check_backend(home) if one.subject == "passphrase"]
    assert (told.level, told.error.exit_code) == ("refused", 7)
