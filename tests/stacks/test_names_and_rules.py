"""Names that can be computed, tags that find things again, rules that never get in each other's way."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from stack_samples import sample

from stacks.names import azure_name, belongs_to, key_pair_name, logical_name, resource_tags
from stacks.rules import ingress_rules

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", fullmatch=True)
NETWORKS = st.builds(
    lambda address, length: str(ipaddress.ip_network((address, length), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(8, 32),
)


def test_a_short_azure_name_is_plain() -> None:
    assert azure_name("digits", "site-1", "vm") == "digits-site-1-vm"


@given(NAMES, NAMES)
def test_every_azure_name_fits_and_ends_in_its_kind(federation: str, participant: str) -> None:
    names = {kind: azure_name(federation, participant, kind) for kind in ("rg", "vnet", "nsg", "subnet", "ip", "vm")}
    assert len(set(names.values())) == len(names)
    for kind, name in names.items():
        assert len(name) <= 64
        assert name.endswith(f"-{kind}")
        assert name.startswith(federation[:20])


def test_long_names_that_begin_alike_stay_apart() -> None:
    one, other = azure_name("f" * 32, "p" * 31 + "1", "vm"), azure_name("f" * 32, "p" * 31 + "2", "vm")
    assert one != other


@given(NAMES, NAMES)
def test_a_key_pair_s_name_fits_ec2(federation: str, participant: str) -> None:
    assert len(key_pair_name(federation, "d" * 40, participant)) <= 255


def test_tags_say_to_whom_a_resource_belongs() -> None:
    args = sample(tags={"cost-centre": "42"})
    tags = resource_tags("aws", args, logical_name("site-1", "vm"))
    assert tags == {
        "cost-centre": "42",
        "fedspan:federation": "digits",
        "fedspan:deployment": "d1",
        "fedspan:participant": "site-1",
        "fedspan:owner": "fl-lead@hospital-a.example",
        "fedspan:logical-name": "site-1-vm",
        "Name": "digits-site-1-vm",
    }
    assert belongs_to("aws", tags, federation="digits", deployment="d1", participant="site-1")
    assert not belongs_to("aws", tags, federation="digits", deployment="d2", participant="site-1")
    assert not belongs_to("azure", tags, federation="digits", deployment="d1", participant="site-1")
    assert not belongs_to("aws", None, federation="digits", deployment="d1", participant="site-1")


@given(st.lists(NETWORKS, min_size=1, max_size=60, unique=True))
def test_each_network_has_one_rule_and_one_priority(networks: list[str]) -> None:
    rules = ingress_rules(sample(ssh_ingress=tuple(networks)))
    assert sorted(rule.cidr for rule in rules) == sorted(networks)
    assert len({rule.slot for rule in rules}) == len(rules)
    assert len({rule.aws_kind for rule in rules}) == len(rules)
    assert all(100 <= rule.slot <= 4096 for rule in rules)


@given(st.lists(NETWORKS, min_size=2, max_size=60, unique=True))
def test_the_order_in_which_networks_are_given_changes_nothing(networks: list[str]) -> None:
    forwards = ingress_rules(sample(ssh_ingress=tuple(networks)))
    assert ingress_rules(sample(ssh_ingress=tuple(reversed(networks)))) == forwards


@given(st.lists(NETWORKS, min_size=2, max_size=60, unique=True))
def test_on_azure_a_rule_s_name_decides_its_priority(networks: list[str]) -> None:
    # An update may bring no two rules to one priority even for a moment: the name keeps it for good.
    before = ingress_rules(sample(ssh_ingress=tuple(networks[1:])))
    after = ingress_rules(sample(ssh_ingress=tuple(networks)))
    priorities = {rule.azure_kind: rule.slot for rule in before}
    assert all(priorities.get(rule.azure_kind, rule.slot) == rule.slot for rule in after)


def test_a_server_opens_both_ports_and_a_site_one() -> None:
    server = ingress_rules(sample(role="server", runtime_port=9443))
    assert {(rule.purpose, rule.port) for rule in server} == {("ssh", 22), ("runtime", 9443)}
    assert {(rule.purpose, rule.port) for rule in ingress_rules(sample(ssh_port=2222))} == {("ssh", 2222)}
