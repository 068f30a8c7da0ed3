"""What a spec names of an account's own, and what an account must allow: looked for before anything is made."""

from __future__ import annotations

import pytest
from e2e_world import SPEC, World, ask_arm, checks, copy_of, refused, subscription

pytestmark = pytest.mark.slow


def test_an_image_of_ones_own_is_looked_for(planned: World) -> None:
    told = [one["what"] for one in checks(planned.json("plan").ok(), "image")]
    (ami,) = [word for line in told for word in line.split() if word.startswith("ami-")]
    spec = copy_of(SPEC)
    place = f"/subscriptions/{subscription(planned)}/resourceGroups/shared/providers/Microsoft.Compute"
    spec["server"]["image"] = f"{place}/images/golden"
    spec["sites"]["site-1"]["image"] = "ami-0123456789abcdef0"
    planned.write(spec)
    try:
        refused(
            planned,
            18,
            "ami-0123456789abcdef0 is not available",
            "Azure knows no image with that ID",
            "mend `image:` in federation.yml",
        )
        spec["sites"]["site-1"]["image"] = ami
        planned.write(spec)
        told = [one["what"] for one in checks(planned.json("plan"), "image")]
        assert f"{ami} is in eu-central-1" in told
    finally:
        planned.write(SPEC)


def test_encryption_at_host_needs_the_subscriptions_feature_and_is_shown_by_plan(
    planned: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", planned.sandbox.azure_environment()["REQUESTS_CA_BUNDLE"])
    feature = "/providers/Microsoft.Features/providers/Microsoft.Compute/features/EncryptionAtHost"
    spec = copy_of(SPEC)
    spec["server"]["encryption_at_host"] = True
    planned.write(spec)
    try:
        refused(planned, 18, "EncryptionAtHost is not registered", "server asks for encryption_at_host")
        ask_arm(planned, "POST", f"{feature}/register")
        shown = planned.run("plan").ok().out
        assert "server uses encryption at host" in shown
        assert "in the way" not in shown
    finally:
        ask_arm(planned, "POST", f"{feature}/unregister")
        planned.write(SPEC)


def test_the_daily_shutdown_of_a_machine_with_an_end_needs_its_own_provider(
    planned: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", planned.sandbox.azure_environment()["REQUESTS_CA_BUNDLE"])
    spec = copy_of(SPEC)
    spec["sites"]["site-1"] = {"target": "azure", "region": "westeurope", "size": "Standard_D4s_v5"}
    planned.write(spec)
    ask_arm(planned, "POST", "/providers/Microsoft.DevTestLab/unregister")
    try:
        assert not [one for one in checks(planned.json("plan").ok(), "provider") if "DevTestLab" in one["what"]]
        result = planned.run("up", "--ttl", "8h", "--yes")
        assert result.code == 18, result.out + result.err
        assert "Microsoft.DevTestLab is not registered" in result.err
        assert "az provider register --namespace Microsoft.DevTestLab" in result.err
        assert planned.inventory() == []
    finally:
        ask_arm(planned, "POST", "/providers/Microsoft.DevTestLab/register")
        planned.write(SPEC)
