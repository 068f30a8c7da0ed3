"""What a cloud's error means for whoever has to act on it. Pure: a text in, a verdict out.

The clouds say the same thing in many words, and the engine wraps them in its own. What decides here are the clouds'
own codes, wherever they stand in the text; whole sentences only where a code says nothing (Azure's
`OperationNotAllowed` is a quota in one sentence and a plain refusal in another).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["capacity", "quota", "throttling", "auth", "policy", "network", "outage", "bug"]
"""What has to be done about an error.

- `capacity`: no room there now: another zone, size or region, or later.
- `quota`: the account may not have more: ask the cloud for it.
- `throttling`: too many requests: later.
- `auth`: credentials or rights: log in, or ask the account's owner.
- `policy`: somebody forbade it for everybody: ask whoever wrote the policy.
- `network`: the cloud was not reached, or did not answer to the end.
- `outage`: the cloud failed by its own account: later.
- `bug`: none of these: a wrong request, or something new.
"""


@dataclass(frozen=True)
class Verdict:
    """`code`: the cloud's own word, where it has one. `ask`: what to ask for, in words; empty where nothing helps."""

    kind: Kind
    code: str = ""
    ask: str = ""


def _codes(*words: str) -> re.Pattern[str]:
    """Whole codes: `LimitExceeded` must not be found in `RequestLimitExceeded`."""
    return re.compile(rf"(?<![A-Za-z])({'|'.join(words)})(?![A-Za-z])")


# In this order: the first that matches decides. What is more special stands before what is more general.
_TABLE: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        "policy",
        _codes(
            "RequestDisallowedByPolicy",
            "RequestDisallowedByAzure",
            "ScopeLocked",
            "ReadOnlyDisabledSubscription",
            "MissingSubscriptionRegistration",
            "MarketplacePurchaseEligibilityFailed",
            "OptInRequired",
            "explicit deny in a service control policy",
            "explicit deny in a resource control policy",
        ),
    ),
    (
        "throttling",
        _codes(
            "RequestLimitExceeded",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequests",
            "TooManyRequestsException",
            "SubscriptionRequestsThrottled",
            "ResourceRequestsThrottled",
            "EC2ThrottledException",
            "Status(?:Code)?[=: ]+429",
        ),
    ),
    (
        "quota",
        _codes(
            "VcpuLimitExceeded",
            "MaxSpotInstanceCountExceeded",
            "ServiceQuotaExceededException",
            "QuotaExceeded",
            "[A-Za-z]+QuotaExceeded",
            "[A-Za-z]*CountLimitReached",
            "ResourceQuotaExceeded",
            "exceeding approved .{1,80}? quota",
            # every other *LimitExceeded of EC2 is a number of things that an account may have
            "(?!RequestLimitExceeded)[A-Z][A-Za-z]*LimitExceeded",
        ),
    ),
    (
        "capacity",
        _codes(
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientAddressCapacity",
            "InsufficientVolumeCapacity",
            "SpotMaxPriceTooLow",
            "SkuNotAvailable",
            "AllocationFailed",
            "ZonalAllocationFailed",
            "OverconstrainedAllocationRequest",
            "OverconstrainedZonalAllocationRequest",
            "is not supported in your requested Availability Zone",
            "Value \\([a-z0-9-]+\\) for parameter availabilityZone is invalid",
        ),
    ),
    (
        "auth",
        _codes(
            "UnauthorizedOperation",
            "AuthFailure",
            "AccessDenied",
            "AccessDeniedException",
            "ExpiredToken",
            "ExpiredTokenException",
            "RequestExpired",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
            "NoCredentialProviders",
            "PendingVerification",
            "Blocked",
            "AuthorizationFailed",
            "LinkedAuthorizationFailed",
            "AuthenticationFailed",
            "InvalidAuthenticationToken",
            "InvalidAuthenticationTokenTenant",
            "ExpiredAuthenticationToken",
            "AADSTS\\d+",
            "[Nn]o valid credential",
            "failed to refresh cached credentials",
            "AWS account ID not allowed",
            "[Aa]ccount ID .{1,40}? not allowed",
            "az login",
        ),
    ),
    (
        "outage",
        _codes(
            "InternalError",
            "InternalServerError",
            "InternalFailure",
            "InternalExecutionError",
            "ServiceUnavailable",
            "Unavailable",
            "NetworkingInternalOperationError",
            "RetryableError",
            "GatewayTimeout",
        ),
    ),
    (
        "network",
        re.compile(
            r"(dial tcp|no such host|connection refused|connection reset by peer|i/o timeout|TLS handshake timeout"
            r"|error reading from server|network is unreachable|[Tt]emporary failure in name resolution|broken pipe"
            r"|unexpected EOF|does not answer|transport is closing|EndpointConnectionError|ConnectTimeout|ReadTimeout"
            r"|context deadline exceeded)"
        ),
    ),
)

_ACTION = (
    re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z*]+)"),
    re.compile(r"perform action '([^']+)'"),
)
_AWS_VCPU = re.compile(r"current vCPU limit of (\d+)")
_AZURE_QUOTA = re.compile(
    r"exceeding approved (?P<name>.+?) quota.*?Location: (?P<place>[\w ]+?),.*?Current Limit: (?P<limit>\d+)"
    r".*?New Limit Required:\s*(?P<wanted>\d+)",
    re.DOTALL,
)
_POLICY = re.compile(r'policyAssignment":\s*\{\s*"name":\s*"([^"]+)"')
_NAMESPACE = re.compile(r"namespace '([\w.]+)'")


def classify(text: str) -> Verdict:
    """What the text of a failed operation means. An unknown one is a `bug`: nothing is guessed."""
    for kind, pattern in _TABLE:
        if found := pattern.search(text):
            return Verdict(kind, found.group(1), _ask(kind, found.group(1), text))
    return Verdict("bug")


def _ask(kind: Kind, code: str, text: str) -> str:
    if kind == "quota":
        return _quota(code, text)
    if kind == "auth":
        action = next((match.group(1) for pattern in _ACTION if (match := pattern.search(text))), "")
        return f"the right {action}" if action else ""
    if kind == "policy":
        if code == "MissingSubscriptionRegistration" and (match := _NAMESPACE.search(text)):
            return f"az provider register --namespace {match.group(1)}"
        match = _POLICY.search(text)
        return f"an exemption from the policy {match.group(1)}" if match else ""
    return ""


def _quota(code: str, text: str) -> str:
    if match := _AZURE_QUOTA.search(text):
        name, place, limit, wanted = (match.group(key) for key in ("name", "place", "limit", "wanted"))
        return f"{name} in {place}: {wanted} at least, now {limit}"
    if match := _AWS_VCPU.search(text):
        return f"more vCPUs for this family of sizes (Service Quotas, Amazon EC2), now {match.group(1)}"
    if code == "MaxSpotInstanceCountExceeded":
        return "more vCPUs of spot requests for this family of sizes (Service Quotas, Amazon EC2)"
    if code.endswith("LimitExceeded"):
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", code.removesuffix("LimitExceeded"))
        return f"a higher limit of {words} (Service Quotas)"
    return ""
