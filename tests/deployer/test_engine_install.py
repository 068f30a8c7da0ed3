"""`fedspan engine install` against a release server of this machine's own, by TLS: the list of checksums, an archive.

The archive holds a script that says the version, as the real command does. The real hosts are asked by nobody here.
"""

from __future__ import annotations

import datetime
import hashlib
import http.server
import io
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployer.engine_find import ENGINE_VERSION
from deployer.engine_install import CHECKSUM_FILE, archive_name

SCRIPT = f'#!/bin/sh\nif [ "$1" = version ]; then echo v{ENGINE_VERSION}; fi\n'
FILES = {"pulumi/pulumi": SCRIPT, "pulumi/pulumi-language-python": "#!/bin/sh\n"}


def archive(files: dict[str, str]) -> bytes:
    """A release's archive with these programs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@dataclass
class Release:
    """A server that gives out `files` by TLS, and what it takes to trust it."""

    url: str
    ca: Path
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def publish(self, files: dict[str, str], checksum: str | None = None) -> str:
        """An archive and its list; returns the archive's checksum."""
        data = archive(files)
        digest = hashlib.sha256(data).hexdigest()
        self.files = {
            archive_name(): data,
            CHECKSUM_FILE: f"{'0' * 64}  something-else.zip\n{checksum or digest}  {archive_name()}\n".encode(),
        }
        self.redirects.clear()
        self.asked.clear()
        return digest


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    folder = tmp_path_factory.mktemp("release")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "releases")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca, pem = folder / "ca.pem", folder / "server.pem"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + ca.read_bytes())
    made = Release("", ca)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            made.asked.append(name)
            if name in made.redirects:
                self.send_response(302)
                self.send_header("Location", made.redirects[name])
                self.end_headers()
                return
            data = made.files.get(name)
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


@dataclass
class Home:
    """A user without any `pulumi`, with a mirror of its own."""

    folder: Path
    release: Release

    @property
    def root(self) -> Path:
        return self.folder / "data" / "fedspan" / "pulumi"

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "FEDSPAN_ENGINE_MIRROR": self.release.url,
            "SSL_CERT_FILE": str(self.release.ca),
            "COLUMNS": "200",
            **more,
        }
        return subprocess.run(
            [sys.executable, "-m", "deployer.cli", *words],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def left(self) -> list[str]:
        """What lies in fedspan's own folder for engines."""
        return sorted(os.listdir(self.root)) if self.root.is_dir() else []


@pytest.fixture
def home(tmp_path: Path, release: Release) -> Home:
    return Home(tmp_path, release)


def test_it_is_installed_after_a_yes_checked_against_the_releases_list(home: Home, release: Release) -> None:
    digest = release.publish(FILES)
    refused = home.run("engine", "install")
    assert refused.returncode == 13, refused.stderr
    assert release.asked == []
    done = home.run("engine", "install", "--yes")
    assert done.returncode == 0, done.stderr
    command = home.root / ENGINE_VERSION / "bin" / "pulumi"
    assert f"installed: {command}" in done.stdout
    assert f"SHA-256 {digest}: as {release.url}/{CHECKSUM_FILE} says" in done.stdout
    assert os.access(command.parent / "pulumi-language-python", os.X_OK)
    shown = json.loads(home.run("engine", "show", "--json").stdout)
    assert (shown["command"], shown["version"]) == (str(command), f"v{ENGINE_VERSION}")
    assert digest in shown["origin"]
    assert home.left() == [ENGINE_VERSION]


def test_another_checksum_is_refused_and_nothing_is_left(home: Home, release: Release) -> None:
    digest = release.publish(FILES, checksum="ab" * 32)
    done = home.run("engine", "install", "--yes")
    assert done.returncode == 16
    assert "has another checksum than" in done.stderr
    assert digest in done.stderr
    assert home.left() == []


def test_an_archive_that_the_list_does_not_name_is_refused(home: Home, release: Release) -> None:
    release.publish(FILES)
    release.files[CHECKSUM_FILE] = b"no checksum here\n"
    done = home.run("engine", "install", "--yes")
    assert done.returncode == 16
    assert f"does not list {archive_name()}" in done.stderr
    assert home.left() == []


@pytest.mark.parametrize("name", ["pulumi/../../evil", "/etc/evil", "other/pulumi", "pulumi/a/b/c"])
def test_an_archive_that_is_not_pulumis_is_refused(home: Home, release: Release, name: str) -> None:
    release.publish({**FILES, name: "x"})
    done = home.run("engine", "install", "--yes")
    assert done.returncode == 16
    assert "is no archive of Pulumi's" in done.stderr
    assert home.left() == []
    assert not (home.folder / "evil").exists()


def test_another_version_in_the_archive_is_refused(home: Home, release: Release) -> None:
    release.publish({**FILES, "pulumi/pulumi": "#!/bin/sh\necho v3.1.0\n"})
    done = home.run("engine", "install", "--yes")
    assert done.returncode == 16
    assert "v3.1.0" in done.stderr
    assert home.left() == []


def test_tls_is_never_left(home: Home, release: Release) -> None:
    release.publish(FILES)
    release.redirects[archive_name()] = f"http://127.0.0.1:9/{archive_name()}"
    redirected = home.run("engine", "install", "--yes")
    assert redirected.returncode == 16
    assert "not https" in redirected.stderr
    plain = home.run("engine", "install", "--yes", FEDSPAN_ENGINE_MIRROR="http://127.0.0.1:9")
    assert plain.returncode == 16
    assert "must be an https:// folder" in plain.stderr
    stranger = home.run("engine", "install", "--yes", SSL_CERT_FILE="/dev/null")
    assert stranger.returncode == 16
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.stderr
    assert home.left() == []


def test_an_offline_site_installs_from_a_file(home: Home, release: Release) -> None:
    digest = release.publish(FILES)
    file = home.folder / archive_name()
    file.write_bytes(release.files[archive_name()])
    blind = home.run("engine", "install", "--yes", "--pulumi", str(file))
    assert blind.returncode == 16
    assert f"put {CHECKSUM_FILE} beside it, or --sha256 HEX" in blind.stderr
    wrong = home.run("engine", "install", "--yes", "--pulumi", str(file), "--sha256", "00" * 32)
    assert wrong.returncode == 16
    (home.folder / CHECKSUM_FILE).write_bytes(release.files[CHECKSUM_FILE])
    done = home.run("engine", "install", "--yes", f"--pulumi={file}")
    assert done.returncode == 0, done.stderr
    assert digest in done.stdout
    assert release.asked == []


def test_the_steps_by_hand_name_both_files_and_the_check(home: Home) -> None:
    told = home.run("engine", "steps", FEDSPAN_ENGINE_MIRROR="").stdout
    assert f"https://get.pulumi.com/releases/sdk/{archive_name()}" in told
    assert f"https://github.com/pulumi/pulumi/releases/download/v{ENGINE_VERSION}/{CHECKSUM_FILE}" in told
    assert "sha256sum --check --ignore-missing" in told


def test_a_named_command_goes_before_all_others(home: Home, release: Release) -> None:
    folder = home.folder / "elsewhere"
    folder.mkdir()
    (folder / "pulumi").write_text("#!/bin/sh\necho v3.299.0\n")
    (folder / "pulumi").chmod(0o755)
    for given in (folder, folder / "pulumi"):
        shown = json.loads(home.run("engine", "show", "--json", "--pulumi", str(given)).stdout)
        assert (shown["command"], shown["version"]) == (str(folder / "pulumi"), "v3.299.0")
    missing = home.run("engine", "show", "--pulumi", str(home.folder / "nowhere"))
    assert missing.returncode == 16
    assert "there is no `pulumi` command" in missing.stderr


def test_up_installs_it_where_it_is_missing_and_yes_was_said(
    home: Home, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployer.cli import context
    from deployer.cli.arguments import GlobalOptions
    from deployer.errors import MissingToolError
    from deployer.realm_real import RealRealm

    release.publish(FILES)
    for name, value in (("HOME", home.folder), ("XDG_DATA_HOME", home.folder / "data"), ("SSL_CERT_FILE", release.ca)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("FEDSPAN_ENGINE_MIRROR", release.url)
    realm = RealRealm({"PATH": "/nowhere"})
    before = context.options()
    try:
        context.configure(GlobalOptions(yes=False))
        with pytest.raises(MissingToolError, match="is not installed") as caught:
            realm.engine_root()
        assert "fedspan engine install" in str(caught.value)
        assert release.asked == []
        context.configure(GlobalOptions(yes=True, json=True))
        assert realm.engine_root() == home.root / ENGINE_VERSION
    finally:
        context.configure(before)
