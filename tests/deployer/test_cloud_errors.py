"""Every class of error is told from the clouds' own words, in the shapes in which their providers pass them on."""

from __future__ import annotations

import pytest

from deployer.cloud_errors import Kind, classify
from deployer.engine_events import Diagnostic
from deployer.errors import CapacityError, CloudError, CredentialsError
from deployer.failures import from_diagnostics


def ec2(operation: str, status: int, code: str, message: str) -> str:
    """As pulumi-aws passes on what EC2 answers."""
    return (
        f"creating EC2 thing: operation error EC2: {operation}, https response error StatusCode: {status}, RequestID:"
        f" 5e9a0ab3-1b5e-4a0f-9f55-2f0f0f0f0f0f, api error {code}: {message}"
    )


def arm(status: int, code: str, message: str) -> str:
    """As pulumi-azure-native passes on what Resource Manager answers."""
    return f'Status={status} Code="{code}" Message="{message}"'


RUN = "RunInstances"
QUOTA_OF_AZURE = (
    "Operation could not be completed as it results in exceeding approved standardDSv5Family Cores quota. Additional"
    " details - Deployment Model: Resource Manager, Location: westeurope, Current Limit: 10, Current Usage: 8,"
    " Additional Required: 4, (Minimum) New Limit Required: 12. Submit a request for Quota increase at https://aka.ms/ProdportalCRP"
)
TABLE: list[tuple[str, Kind, str, str]] = [
    # what was said, kind, code, what to ask for
    (ec2(RUN, 500, "InsufficientInstanceCapacity", "We currently do not have sufficient g5.xlarge capacity in the"
         " Availability Zone you requested (eu-central-1a)."), "capacity", "InsufficientInstanceCapacity", ""),
    (ec2(RUN, 400, "InsufficientHostCapacity", "There is not enough capacity on the host"), "capacity",
     "InsufficientHostCapacity", ""),
    (ec2("AllocateAddress", 400, "InsufficientAddressCapacity", "Not enough addresses"), "capacity",
     "InsufficientAddressCapacity", ""),
    (ec2(RUN, 400, "SpotMaxPriceTooLow", "Your Spot request price of 0.01 is lower than the minimum"), "capacity",
     "SpotMaxPriceTooLow", ""),
    (ec2(RUN, 400, "Unsupported", "Your requested instance type (p5.48xlarge) is not supported in your requested"
         " Availability Zone (us-east-1e)."), "capacity", "is not supported in your requested Availability Zone", ""),
    (arm(409, "SkuNotAvailable", "The requested VM size for resource 'Following SKUs have failed for Capacity"
         " Restrictions: Standard_NC24ads_A100_v4' is currently not available in location 'westeurope'."), "capacity",
     "SkuNotAvailable", ""),
    (arm(200, "AllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size in"
         " this region."), "capacity", "AllocationFailed", ""),
    ('Code="ZonalAllocationFailed" Message="Allocation failed. We do not have sufficient capacity for the requested VM'
     ' size in this zone."', "capacity", "ZonalAllocationFailed", ""),
    (arm(200, "OverconstrainedZonalAllocationRequest", "Allocation failed. VM(s) with the following constraints cannot"
         " be allocated, because the condition is too restrictive."), "capacity",
     "OverconstrainedZonalAllocationRequest", ""),
    (arm(200, "OverconstrainedAllocationRequest", "Allocation failed."), "capacity", "OverconstrainedAllocationRequest",
     ""),
    (ec2(RUN, 400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 32"
         " allows for the instance bucket that the specified instance type belongs to."), "quota", "VcpuLimitExceeded",
     "now 32"),
    (ec2(RUN, 400, "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"), "quota",
     "MaxSpotInstanceCountExceeded", "spot requests"),
    (ec2("AllocateAddress", 400, "AddressLimitExceeded", "The maximum number of addresses has been reached."), "quota",
     "AddressLimitExceeded", "a higher limit of Address"),
    (ec2("CreateVpc", 400, "VpcLimitExceeded", "The maximum number of VPCs has been reached."), "quota",
     "VpcLimitExceeded", "Vpc"),
    (ec2("AuthorizeSecurityGroupIngress", 400, "RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per"
         " security group has been reached."), "quota", "RulesPerSecurityGroupLimitExceeded",
     "Rules Per Security Group"),
    (arm(409, "OperationNotAllowed", QUOTA_OF_AZURE), "quota", "exceeding approved standardDSv5Family Cores quota",
     "standardDSv5Family Cores in westeurope: 12 at least, now 10"),
    (arm(409, "QuotaExceeded", "Operation could not be completed as it results in exceeding approved LowPriorityCores"
         " quota."), "quota", "QuotaExceeded", ""),
    (arm(400, "PublicIPCountLimitReached", "Cannot create more than 20 public IP addresses for this subscription in"
         " this region."), "quota", "PublicIPCountLimitReached", ""),
    (ec2(RUN, 503, "RequestLimitExceeded", "Request limit exceeded."), "throttling", "RequestLimitExceeded", ""),
    ("operation error STS: GetCallerIdentity, api error Throttling: Rate exceeded", "throttling", "Throttling", ""),
    (arm(429, "SubscriptionRequestsThrottled", "Number of requests for subscription exceeded the limit"), "throttling",
     "Status=429", ""),
    (arm(429, "OperationNotAllowed", "The server rejected the request because too many requests have been received"),
     "throttling", "Status=429", ""),
    ('Code="TooManyRequests" Message="The request is being throttled."', "throttling", "TooManyRequests", ""),
    (ec2(RUN, 403, "UnauthorizedOperation", "You are not authorized to perform this operation. User:"
         " arn:aws:iam::111122223333:user/ana is not authorized to perform: ec2:RunInstances on resource:"
         " arn:aws:ec2:eu-central-1:111122223333:instance/* because no identity-based policy allows the"
         " ec2:RunInstances action"), "auth", "UnauthorizedOperation", "the right ec2:RunInstances"),
    (ec2("DescribeVpcs", 401, "AuthFailure", "AWS was not able to validate the provided access credentials"), "auth",
     "AuthFailure", ""),
    ("operation error STS: GetCallerIdentity, https response error StatusCode: 403, api error ExpiredToken: The"
     " security token included in the request is expired", "auth", "ExpiredToken", ""),
    (arm(403, "AuthorizationFailed", "The client '11111111-2222' with object id '11111111-2222' does not have"
         " authorization to perform action 'Microsoft.Compute/virtualMachines/write' over scope '/subscriptions/s'"),
     "auth", "AuthorizationFailed", "the right Microsoft.Compute/virtualMachines/write"),
    (arm(403, "LinkedAuthorizationFailed", "The client has permission to perform action 'x' on scope 'y', however the"
         " current tenant is not authorized to access linked subscription"), "auth", "LinkedAuthorizationFailed",
     "the right x"),
    (arm(401, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time"),
     "auth", "ExpiredAuthenticationToken", ""),
    ("ClientSecretCredential authentication failed: AADSTS7000215: Invalid client secret provided.", "auth",
     "AADSTS7000215", ""),
    (arm(403, "RequestDisallowedByPolicy", "Resource 'digits-site-1-vm' was disallowed by policy. Policy identifiers:"
         """ '[{"policyAssignment":{"name":"Allowed locations","id":"/providers/p"}}]'."""), "policy",
     "RequestDisallowedByPolicy", "an exemption from the policy Allowed locations"),
    (ec2(RUN, 403, "UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:x is not"
         " authorized to perform: ec2:RunInstances with an explicit deny in a service control policy"), "policy",
     "explicit deny in a service control policy", ""),
    (arm(409, "ScopeLocked", "The scope '/subscriptions/s' cannot perform write operation because following scope(s)"
         " are locked"), "policy", "ScopeLocked", ""),
    (arm(409, "MissingSubscriptionRegistration", "The subscription is not registered to use namespace"
         " 'Microsoft.Compute'."), "policy", "MissingSubscriptionRegistration",
     "az provider register --namespace Microsoft.Compute"),
    ("Post \"https://ec2.eu-central-1.amazonaws.com/\": dial tcp: lookup ec2.eu-central-1.amazonaws.com: no such host",
     "network", "dial tcp", ""),
    ("rpc error: code = Unavailable desc = error reading from server: EOF", "outage", "Unavailable", ""),
    ("error reading from server: EOF", "network", "error reading from server", ""),
    ("read tcp 10.0.0.7:51512->52.94.1.1:443: read: connection reset by peer", "network", "connection reset by peer",
     ""),
    (ec2(RUN, 500, "InternalError", "An internal error has occurred"), "outage", "InternalError", ""),
    (arm(500, "InternalExecutionError", "An internal execution error occurred."), "outage", "InternalExecutionError",
     ""),
    (ec2("CreateVolume", 503, "ServiceUnavailable", "The request has failed due to a temporary failure"), "outage",
     "ServiceUnavailable", ""),
    (ec2(RUN, 400, "InvalidParameterValue", "Invalid value 'm9i.huge' for InstanceType."), "bug", "", ""),
    (arm(400, "InvalidParameter", "The value of parameter osProfile is invalid."), "bug", "", ""),
    (arm(409, "OperationNotAllowed", "Managed resource group is not allowed here."), "bug", "", ""),
    ("", "bug", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("said", "kind", "code", "ask"), TABLE)
def test_what_a_cloud_says_is_sorted_by_what_has_to_be_done(said: str, kind: Kind, code: str, ask: str) -> None:
    verdict = classify(said)
    assert (verdict.kind, verdict.code) == (kind, code)
    assert ask in verdict.ask
    assert bool(ask) == bool(verdict.ask)


def told(said: str) -> Exception:
    """The error that a user gets when the machine of site-1 failed with these words."""
    urn = "urn:pulumi:site-1::fedspan-digits::aws:ec2/instance:Instance::site-1-vm"
    return from_diagnostics("site-1", [Diagnostic(urn, said)])


def next_step(said: str) -> str:
    return str(getattr(told(said), "next_step", ""))


def test_each_kind_says_what_to_do_next() -> None:
    by_kind = {kind: said for said, kind, _, _ in reversed(TABLE)}
    assert "zones:, sizes: or fallback_regions:" in next_step(by_kind["capacity"])
    assert "Service Quotas" in next_step(by_kind["quota"])
    assert "wait a minute" in next_step(by_kind["throttling"])
    assert "ask for the right ec2:RunInstances" in next_step(by_kind["auth"])
    assert "an exemption from the policy Allowed locations" in next_step(by_kind["policy"])
    assert "network" in next_step(by_kind["network"])
    for said in by_kind.values():
        assert "fedspan up site-1" in next_step(said)


def test_each_kind_has_its_exit_code() -> None:
    codes = {kind: getattr(told(said), "exit_code", 0) for said, kind, _, _ in TABLE}
    assert codes["capacity"] == codes["quota"] == CapacityError.exit_code
    assert codes["auth"] == CredentialsError.exit_code
    for kind in ("throttling", "policy", "network", "outage", "bug"):
        assert codes[kind] == CloudError.exit_code  # type: ignore[index]  # a literal of the same type


def test_expired_credentials_are_no_missing_right() -> None:
    error = told("api error ExpiredToken: The security token included in the request is expired")
    assert isinstance(error, CredentialsError)
    assert "log in again" in next_step("api error ExpiredToken: expired")


def test_a_cause_told_of_another_resource_decides_too() -> None:
    diagnostics = [
        Diagnostic("urn:pulumi:s::p::aws:ec2/instance:Instance::site-1-vm", "something failed"),
        Diagnostic("", "api error VcpuLimitExceeded: current vCPU limit of 8 allows"),
    ]
    assert getattr(from_diagnostics("site-1", diagnostics), "kind", "") == "quota"
