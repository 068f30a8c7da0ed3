"""The emulated Service Quotas: AWS's defaults, what a test or a demonstration set instead, and EC2's refusals by them.

Codes, names and the VPC service's defaults are AWS's own. The vCPU quotas of a real account depend on its history; here
each family has 640, and GPU families too, so that nothing is refused that nobody asked to be.
"""

from __future__ import annotations

import json
import re
from typing import Any

_VCPUS = 640.0
_G, _P, _STANDARD = "(G and VT)", "P", "Standard (A, C, D, H, I, M, R, T, Z)"

# (service, code) -> (name, default)
QUOTAS: dict[tuple[str, str], tuple[str, float]] = {
    ("vpc", "L-F678F1CE"): ("VPCs per Region", 5.0),
    ("vpc", "L-A4707A72"): ("Internet gateways per Region", 5.0),
    ("vpc", "L-0EA8095F"): ("Inbound or outbound rules per security group", 60.0),
    ("ec2", "L-0263D0A3"): ("EC2-VPC Elastic IPs", 5.0),
    ("ec2", "L-1216C47A"): (f"Running On-Demand {_STANDARD} instances", _VCPUS),
    ("ec2", "L-DB2E81BA"): (f"Running On-Demand {_G} instances", _VCPUS),
    ("ec2", "L-417A185B"): (f"Running On-Demand {_P} instances", _VCPUS),
    ("ec2", "L-34B43A08"): (f"All {_STANDARD} Spot Instance Requests", _VCPUS),
    ("ec2", "L-3819A6DF"): (f"All {_G} Spot Instance Requests", _VCPUS),
    ("ec2", "L-7212CCBC"): ("All P4, P3 and P2 Spot Instance Requests", _VCPUS),
}
_TARGET = "ServiceQuotasV20190624."
_set: dict[tuple[str, str, str], float] = {}


def set_quota(account: str, region: str, code: str, value: float) -> None:
    """From now on an account's quota in a region. Raises ValueError for a code that there is not."""
    if code not in {known for _, known in QUOTAS}:
        raise ValueError(f"no quota {code}: there are {', '.join(sorted(code for _, code in QUOTAS))}")
    _set[account, region, code] = float(value)


def forget() -> None:
    """Every account has the defaults again."""
    _set.clear()


def limit(account: str, region: str, code: str) -> int:
    """What EC2 allows."""
    default = next(value for (_, known), (_, value) in QUOTAS.items() if known == code)
    return int(_set.get((account, region, code), default))


def vcpu_code(instance_type: str, spot: bool) -> str:
    """The quota whose vCPUs a machine of this type takes."""
    family = re.match(r"[a-z]+", instance_type)
    letters = family.group() if family else ""
    if letters in ("g", "vt", "gr"):
        return "L-3819A6DF" if spot else "L-DB2E81BA"
    if letters == "p":
        return "L-7212CCBC" if spot else "L-417A185B"
    return "L-34B43A08" if spot else "L-1216C47A"


def answer(target: str, body: bytes, account: str, region: str) -> tuple[int, dict[str, Any]]:
    """One call of the service: HTTP status and document."""
    action = target.removeprefix(_TARGET)
    asked = json.loads(body or b"{}")
    if action not in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
        return 400, {"__type": "UnknownOperationException", "message": f"the sandbox does not emulate {action}"}
    key = (str(asked.get("ServiceCode")), str(asked.get("QuotaCode")))
    if key not in QUOTAS:
        return 400, {
            "__type": "NoSuchResourceException",
            "message": "The request failed because the specified service quota does not exist.",
        }
    name, default = QUOTAS[key]
    value = default if action == "GetAWSDefaultServiceQuota" else _set.get((account, region, key[1]), default)
    return 200, {
        "Quota": {
            "ServiceCode": key[0],
            "QuotaCode": key[1],
            "QuotaName": name,
            "QuotaArn": f"arn:aws:servicequotas:{region}:{account}:{key[0]}/{key[1]}",
            "Value": value,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }
    }
