"""Who is let in: rules from participants, admins and allowed networks."""

from __future__ import annotations

import pytest

from deployer.cli import context
from deployer.cli.arguments import GlobalOptions
from deployer.errors import FedspanError, RefusedError, SpecError
from deployer.ingress import check_cidr, cidrs, fitted, runtime_openings, ssh_openings
from deployer.my_address import SERVICES, agreed, ask_the_world
from deployer.session_allow import ask_if_wide, nearest
from tests.deployer.decision_samples import SERVER, member


def test_the_servers_port_is_open_to_sites_allowed_networks_and_admins_only() -> None:
    members = [SERVER, member("site-1"), member("site-2"), member("site-3", "kit", egress=("203.0.113.7/32",))]
    found = runtime_openings(
        SERVER, members, {"site-1": "52.1.2.3"}, {"site-2": ["52.9.9.9/32"]}, {"ana": ["198.51.100.0/24"]}
    )
    assert [(opening.source, opening.who) for opening in found] == [
        ("52.1.2.3/32", "site-1"),
        ("address of site-2", "site-2"),
        ("203.0.113.7/32", "site-3"),
        ("52.9.9.9/32", "site-2"),
        ("198.51.100.0/24", "ana"),
    ]
    assert cidrs(found, 8002)[-1] == "203.0.113.7/32"


def test_two_sites_behind_one_nat_share_a_rule() -> None:
    sites = [member(name, "kit", egress=("203.0.113.7/32",)) for name in ("site-1", "site-2")]
    found = runtime_openings(SERVER, [SERVER, *sites], {}, {}, {})
    assert [(opening.cidr, opening.who) for opening in found] == [("203.0.113.7/32", "site-1, site-2")]


def test_networks_are_joined_only_where_a_security_group_would_not_take_them() -> None:
    sites = tuple(f"52.1.2.{number}/32" for number in range(64))
    assert fitted(("198.51.100.10/32",), sites[:59]) == (("198.51.100.10/32",), sites[:59])
    assert fitted(("198.51.100.10/32",), sites) == (("198.51.100.10/32",), ("52.1.2.0/26",))
    scattered = tuple(f"52.1.{number}.7/32" for number in range(64))
    assert fitted(("198.51.100.10/32",), scattered)[1] == scattered  # refused later, by the stack's arguments


def test_ssh_is_never_open_to_the_world() -> None:
    with pytest.raises(SpecError, match="opens SSH to the world"):
        ssh_openings(22, ["0.0.0.0/0"])
    with pytest.raises(SpecError, match="names no network"):
        ssh_openings(22, [])


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/4", "banana", "52.1.2.3/24"])
def test_allow_refuses_what_is_no_network_or_too_wide(text: str) -> None:
    with pytest.raises(SpecError):
        check_cidr(text)


def test_a_wide_network_is_let_in_only_with_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "interactive", lambda: False)
    context.configure(GlobalOptions())
    ask_if_wide("52.1.2.0/24")
    with pytest.raises(RefusedError, match=r"all 16777216 addresses of 52\.0\.0\.0/8"):
        ask_if_wide("52.0.0.0/8")
    context.configure(GlobalOptions(yes=True))
    try:
        ask_if_wide("52.0.0.0/8")
    finally:
        context.configure(GlobalOptions())


def test_the_nearest_site_is_offered() -> None:
    assert nearest("site1", ["site-1", "site-2"]) == "site-1"
    assert nearest("munich", []) == "SITE"


def test_ones_own_address_needs_two_services_that_agree() -> None:
    assert agreed({"a": "52.1.2.3", "b": "52.1.2.3", "c": "no answer"}) == "52.1.2.3"
    assert agreed({"a": "52.1.2.3", "b": "no answer"}) is None
    assert agreed({"a": "52.1.2.3", "b": "52.1.2.3", "c": "9.9.9.9"}) is None
    assert agreed({"a": "10.0.0.1", "b": "10.0.0.1"}) is None
    answers = dict(zip(SERVICES, ("52.1.2.3", "52.1.2.3", "8.8.8.8", "52.1.2.3"), strict=True))
    with pytest.raises(FedspanError, match="can't be found out"):
        ask_the_world(answers.__getitem__)
    assert ask_the_world(lambda url: "52.1.2.3") == "52.1.2.3"
