"""The server itself: TLS, tokens and tenants, discovery documents, what ARM asks of every request."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.mgmt.resource.resources import ResourceManagementClient
from cryptography import x509

from deployer.sandbox.addresses import AddressPool, AddressPoolExhausted
from deployer.sandbox.azure import DEFAULT_SUBSCRIPTION, ArmServer
from deployer.sandbox.faults import FaultBook

from .arm_kit import REGION, Azure, refused


def _get(azure: Azure, path: str, token: str | None = None, method: str = "GET", **more: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = azure.server.url + path
    return requests.request(method, url, headers=headers, verify=str(azure.server.ca_file), timeout=60, **more)


def _token(azure: Azure) -> str:
    return str(azure.credential().get_token(f"{azure.server.url}/.default").token)


def _code(answer: requests.Response) -> str:
    return str(answer.json()["error"]["code"])


def test_only_the_sandboxes_own_authority_vouches_for_the_server(azure: Azure) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(azure.server.url + "/metadata/endpoints", timeout=60)
    authority = x509.load_pem_x509_certificate(azure.server.ca_file.read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is True
    assert (azure.server.ca_file.parent / "ca.key").stat().st_mode & 0o077 == 0
    assert not list(azure.server.ca_file.parent.glob("server*"))  # the server's own key lies nowhere


def test_the_authority_survives_a_restart_and_the_clouds_contents_do_not(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with ArmServer(addresses=AddressPool("127.202.0.0/22"), home=tmp_path, faults=FaultBook(None)) as server:
            azure = Azure(server, DEFAULT_SUBSCRIPTION, server.environment())
            assert list(azure.resources.resource_groups.list()) == []
            azure.group()
            seen.append(server.ca_file.read_bytes())
    assert seen[0] == seen[1]


def test_stopping_ends_connections_and_threads_and_frees_the_port() -> None:
    before = set(threading.enumerate())
    server = ArmServer(addresses=AddressPool("127.202.0.0/22"), faults=FaultBook(None))
    url = server.start()
    folder = server.ca_file.parent
    session = requests.Session()
    session.get(url + "/metadata/endpoints", verify=str(server.ca_file), timeout=60)
    server.stop()
    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert set(threading.enumerate()) - before == set()
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=2)


def test_a_client_that_speaks_no_tls_or_says_nothing_hinders_nobody(azure: Azure) -> None:
    host, port = azure.server.url.removeprefix("https://").split(":")
    silent = socket.create_connection((host, int(port)))
    rude = socket.create_connection((host, int(port)))
    rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
    azure.group()
    context = ssl.create_default_context(cafile=str(azure.server.ca_file))
    with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
        tls.sendall(b"GET /metadata/endpoints HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert tls.recv(15) == b"HTTP/1.1 200 OK"
    silent.close()
    rude.close()


def test_discovery_documents_lead_from_the_metadata_to_the_token_endpoint(azure: Azure) -> None:
    found = _get(azure, "/metadata/endpoints?api-version=2022-09-01").json()[0]
    assert found["resourceManager"].rstrip("/") == azure.server.url
    old = _get(azure, "/metadata/endpoints?api-version=2015-01-01").json()
    login = old["authentication"]["loginEndpoint"]
    assert login == found["authentication"]["loginEndpoint"] == azure.server.url
    tenant = azure.environment["ARM_TENANT_ID"]
    document = _get(azure, f"/{tenant}/v2.0/.well-known/openid-configuration").json()
    assert document["token_endpoint"] == f"{azure.server.url}/{tenant}/oauth2/v2.0/token"
    instance = _get(azure, "/common/discovery/instance?api-version=1.1").json()
    assert instance["metadata"][0]["aliases"] == [azure.server.url.removeprefix("https://")]


def test_wrong_secrets_clients_and_tenants_get_entras_own_numbers(azure: Azure) -> None:
    scope = f"{azure.server.url}/.default"
    for change, number in (
        ({"ARM_CLIENT_SECRET": "wrong"}, "AADSTS7000215"),
        ({"ARM_CLIENT_ID": "6f2d0d3c-0000-4000-8000-000000000000"}, "AADSTS700016"),
        ({"ARM_TENANT_ID": "6f2d0d3c-0000-4000-8000-000000000000"}, "AADSTS90002"),
    ):
        with pytest.raises(ClientAuthenticationError, match=number):
            azure.credential(**change).get_token(scope)
    with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
        azure.credential().get_token("https://vault.example/.default")


def test_another_tenants_subscription_is_refused_whoever_asks(azure: Azure) -> None:
    theirs = azure.server.add_subscription(
        "f0e1d2c3-0000-4000-8000-000000000001", "aaaa0000-0000-4000-8000-000000000001"
    )
    with refused("InvalidAuthenticationTokenTenant", theirs.tenant_id, status=401):
        list(azure.client(ResourceManagementClient, theirs.id).resource_groups.list())
    own = Azure(azure.server, theirs.id, azure.server.environment(theirs.id))
    own.group()
    with refused("SubscriptionNotFound", status=404):
        list(azure.client(ResourceManagementClient, "f0e1d2c3-dead-4000-8000-000000000001").resource_groups.list())
    second = azure.server.add_subscription("f0e1d2c3-0000-4000-8000-000000000002", theirs.tenant_id)
    with refused("AuthorizationFailed", "Microsoft.Resources/subscriptions/resourceGroups/read", status=403):
        list(own.client(ResourceManagementClient, second.id).resource_groups.list())


def test_the_documented_way_to_connect_works_with_nothing_but_the_environment(azure: Azure) -> None:
    page = Path(__file__).parents[3] / "docs" / "sandbox-azure.md"
    snippet = textwrap.dedent(page.read_text().split("    import os\n", 1)[1].split("\n\n-", 1)[0])
    program = f"import os\n{snippet}\nprint(len(list(compute.virtual_machines.list_all())))"
    environment = {**azure.environment, "PATH": os.environ["PATH"], "https_proxy": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_subscriptions_tenants_and_locations_can_be_asked(azure: Azure) -> None:
    token = _token(azure)
    mine = {
        one["subscriptionId"]: one
        for one in _get(azure, "/subscriptions?api-version=2022-12-01", token).json()["value"]
    }
    assert mine[azure.subscription]["tenantId"] == azure.environment["ARM_TENANT_ID"]
    tenants = _get(azure, "/tenants?api-version=2022-12-01", token).json()["value"]
    assert [one["tenantId"] for one in tenants] == [azure.environment["ARM_TENANT_ID"]]
    places = _get(azure, f"/subscriptions/{azure.subscription}/locations?api-version=2022-12-01", token).json()["value"]
    europe = next(place for place in places if place["name"] == REGION)
    assert len(europe["availabilityZoneMappings"]) == 3


def test_every_request_needs_a_token_a_version_and_a_place_that_exists(azure: Azure) -> None:
    token, root = _token(azure), f"/subscriptions/{azure.subscription}"
    groups, version = f"{root}/resourcegroups", "?api-version=2024-03-01"
    missing = _get(azure, groups + version)
    assert (missing.status_code, _code(missing)) == (401, "AuthenticationFailed")
    assert "Bearer" in missing.headers["WWW-Authenticate"]
    assert _code(_get(azure, groups + version, token + "x")) == "InvalidAuthenticationToken"
    assert _code(_get(azure, groups, token)) == "MissingApiVersionParameter"
    assert _code(_get(azure, groups + "?api-version=latest", token)) == "InvalidApiVersionParameter"
    assert _code(_get(azure, f"{root}/nothing{version}", token)) == "NotFound"
    azure.group()
    inside = f"{groups}/rg/providers"
    assert _code(_get(azure, f"{inside}/Microsoft.Nothing/things/a{version}", token)) == "InvalidResourceNamespace"
    assert _code(_get(azure, f"{inside}/Microsoft.Network/things/a{version}", token)) == "InvalidResourceType"
    body = _get(azure, f"{groups}/rg2{version}", token, "PUT", data="{")
    assert (body.status_code, _code(body)) == (400, "InvalidRequestContent")
    assert _code(_get(azure, f"{groups}/rg2{version}", token, "PUT", data="[]")) == "InvalidRequestContent"
    assert _get(azure, f"{groups}/rg2{version}", token, "PUT", data="x" * (5 << 20)).status_code == 413


def test_an_expired_token_is_refused(azure: Azure) -> None:
    one = azure.environment
    old = azure.server.cloud.issue_token(one["ARM_TENANT_ID"], one["ARM_CLIENT_ID"], azure.server.url, -10)
    answer = _get(azure, f"/subscriptions/{azure.subscription}?api-version=2022-12-01", old)
    assert (answer.status_code, _code(answer)) == (401, "ExpiredAuthenticationToken")


def test_the_pool_running_dry_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    pool = AddressPool("127.203.0.0/27")
    with contextlib.suppress(AddressPoolExhausted):
        while True:
            pool.allocate("x")
    with ArmServer(addresses=pool, home=tmp_path, faults=FaultBook(None)) as server:
        azure = Azure(server, DEFAULT_SUBSCRIPTION, server.environment())
        azure.group()
        with refused("PublicIPCountLimitReached"):
            azure.address()
        assert "publicIPAddresses" not in azure.kinds()


def test_many_clients_at_once_get_consistent_answers(azure: Azure) -> None:
    azure.group()
    azure.vnet()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            azure.subnet(f"s{number}", addressPrefix=f"10.0.{number}.0/24")
            azure.address(f"ip{number}")
        except HttpResponseError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    addresses = [one.ip_address for one in azure.network.public_ip_addresses.list("rg")]
    assert len(set(addresses)) == len(addresses) == 16
    assert len(list(azure.network.subnets.list("rg", "vnet"))) == 16
