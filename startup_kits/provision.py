"""`fedspan provision`: the CA, a certificate and a kit for each participant. Done twice, it changes nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from startup_kits import certificates, layout, revocation, signing
from startup_kits.certificates import Authority, Subject
from startup_kits.errors import KitError
from startup_kits.kit import CA_CERTIFICATE, CERTIFICATE, ENDPOINT, PARTICIPANT, Kit
from startup_kits.passphrase import PassphraseSource
from startup_kits.spec_models import AdminSpec, FederationSpec
from startup_kits.spec_participants import SERVER, ParticipantSpec
from startup_kits.workspace import Workspace, write_private

#: A fixed time in zips, so that the same kit gives the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class ProvisionResult:
    """What `provision` did: participants by what happened to their kits, and kits by participant."""

    ca_fingerprint: str
    kits: dict[str, Path]
    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    zips: dict[str, Path] = field(default_factory=dict)


def provision(
    workspace: Workspace, spec: FederationSpec, passphrase: PassphraseSource, zip_kits: bool = False
) -> ProvisionResult:
    """Makes what is missing and leaves alone what is right.

    A site added to the spec adds one kit. A kit whose signed content must change (another port, say) is signed anew
    with the key and the certificate that it has; `local/` and `transfer/` are never touched, except for files that are
    still as they were written here. A certificate near its end is renewed; a revoked one is replaced by one with a new
    key, for the participants that are still in the spec.

    Raises:
        KitError: the CA's passphrase is missing or wrong, or a kit was tampered with.
    """
    workspace.ensure()
    maker = _Maker(workspace, spec, passphrase)
    result = ProvisionResult(certificates.fingerprint(maker.ca), {})
    revocation.renew_if_due(workspace, spec.name, lambda: maker.authority)
    for name, role, part in _everybody(spec):
        outcome = maker.make(name, role, part)
        {"created": result.created, "updated": result.updated, "unchanged": result.unchanged}[outcome].append(name)
        result.kits[name] = workspace.kits_dir / name
    revocation.distribute(workspace, revocation.load(workspace))
    if zip_kits:
        result.zips.update({name: _zip(kit) for name, kit in result.kits.items()})
    present = {path.parent.parent.name for path in workspace.kits_dir.glob(f"[!.]*/{PARTICIPANT}")}
    result.left_over.extend(sorted(present - set(result.kits)))
    return result


def ca_fingerprint(workspace: Workspace) -> str | None:
    """The fingerprint of the workspace's CA, None before the first provision."""
    path = workspace.ca_dir / "ca.crt"
    if not path.exists():
        return None
    return certificates.fingerprint(certificates.load_certificate(path.read_bytes(), str(path)))


def runtime_version() -> str:
    """The version of fedspan that makes the kits, which is the runtime's that is pushed with them."""
    return importlib.metadata.version("fedspan")


def _everybody(spec: FederationSpec) -> Iterator[tuple[str, str, ParticipantSpec | AdminSpec]]:
    yield SERVER, "server", spec.server
    for name, site in spec.sites.items():
        yield name, "site", site
    for name, admin in spec.admins.items():
        yield name, "admin", admin


class _Maker:
    """Makes kits; opens the CA's key only when something must be signed."""

    def __init__(self, workspace: Workspace, spec: FederationSpec, passphrase: PassphraseSource) -> None:
        self._workspace = workspace
        self._spec = spec
        self._passphrase = passphrase
        self._authority: Authority | None = None
        self._certificate_path = workspace.ca_dir / "ca.crt"
        self._key_path = workspace.ca_dir / "ca.key"
        self._written_path = workspace.state_dir / "local-files.json"
        self._written: dict[str, str] = (
            json.loads(self._written_path.read_text()) if self._written_path.exists() else {}
        )
        self._revoked = revocation.load(workspace).serials
        self._runtime = runtime_version()
        if not self._certificate_path.exists():
            self._create_authority()
        self.ca = certificates.load_certificate(self._certificate_path.read_bytes(), str(self._certificate_path))
        federation = Subject.of(self.ca).federation
        if federation != spec.name:
            raise KitError(
                f"the CA in {workspace.ca_dir} belongs to the federation {federation}, not to {spec.name}",
                why="a federation's name is in every certificate and can't be changed",
                next_step=f"name it {federation} again, or begin {spec.name} in a folder of its own",
            )

    def _create_authority(self) -> None:
        if self._key_path.exists() or any(self._workspace.kits_dir.glob(f"*/{PARTICIPANT}")):
            raise KitError(
                f"{self._certificate_path} is missing, but kits or a key of that CA are there",
                next_step="restore .fedspan/ca from your backup",
            )
        authority = Authority.create(self._spec.name)
        # The certificate is written last: where it stands, the key stands too.
        write_private(self._key_path, authority.encrypted_key(self._passphrase.new()))
        write_private(
            self._certificate_path, authority.certificate.public_bytes(serialization.Encoding.PEM), mode=0o644
        )
        self._authority = authority

    @property
    def authority(self) -> Authority:
        if self._authority is None:
            self._authority = Authority.load(
                self._certificate_path.read_bytes(), self._key_path.read_bytes(), self._passphrase.existing()
            )
        return self._authority

    def make(self, name: str, role: str, part: ParticipantSpec | AdminSpec) -> str:
        """Makes or mends one kit: `created`, `updated` or `unchanged`."""
        kit = self._workspace.kits_dir / name
        if not kit.exists():
            for interrupted in kit.parent.glob(f".{name}.*.old"):
                interrupted.rename(kit)  # a provision was killed between the two renames of `_write`
        new = not (kit / PARTICIPANT).is_file()
        if new and kit.exists() and any(kit.iterdir()):
            raise KitError(f"{kit} is not empty and not a kit", participant=name, next_step=f"move {kit} away")
        certificate = None if new else self._usable_certificate(kit, name, role, part)
        signed = self._signed_texts(name, role, part)
        if new or certificate is None or not self._is_as_wanted(kit, signed):
            # A kit appears whole or not at all: it is built beside its place and renamed.
            self._write(kit, name, role, part, certificate, signed)
            outcome = "created" if new else "updated"
        else:
            outcome = "unchanged"
        return "updated" if self._write_local(kit, role, part) and not new else outcome

    def _usable_certificate(
        self, kit: Path, name: str, role: str, part: ParticipantSpec | AdminSpec
    ) -> x509.Certificate | None:
        """The kit's certificate if it still says what it should for long enough. A tampered kit is refused."""
        try:
            verified = Kit.open(kit) if self._expired(kit) else Kit.verify(kit, certificates.fingerprint(self.ca))
        except KitError as error:
            raise KitError(
                error.what, participant=name, why=error.why, next_step=f"move {kit} away, then: fedspan provision"
            ) from None
        if revocation.serial_of(verified.certificate) in self._revoked:
            return None
        left = verified.certificate.not_valid_after_utc - dt.datetime.now(dt.timezone.utc)
        names = verified.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        subject = self._subject(name, role, part)
        same = list(names) == subject.alternative_names() and verified.certificate.subject == subject.x509_name()
        return verified.certificate if same and left > certificates.RENEW_BEFORE else None

    def _expired(self, kit: Path) -> bool:
        return Kit.open(kit).certificate.not_valid_after_utc < dt.datetime.now(dt.timezone.utc)

    def _is_revoked(self, kit: Path) -> bool:
        path = kit / CERTIFICATE
        if not path.exists():
            return False
        certificate = certificates.load_certificate(path.read_bytes(), str(path))
        return revocation.serial_of(certificate) in self._revoked

    def _subject(self, name: str, role: str, part: ParticipantSpec | AdminSpec) -> Subject:
        return Subject(
            name,
            self._spec.name,
            role,
            part.role if isinstance(part, AdminSpec) else None,
            self._spec.server.hostname if role == "server" else None,
        )

    def _signed_texts(self, name: str, role: str, part: ParticipantSpec | AdminSpec) -> dict[str, str]:
        fingerprint = certificates.fingerprint(self.ca)
        files = layout.root_files(self._spec, name, role, fingerprint, self._runtime)
        files[PARTICIPANT] = layout.participant_file(self._spec, name, role, part, self._runtime)
        return files

    def _is_as_wanted(self, kit: Path, signed: dict[str, str]) -> bool:
        present = set(signing.covered_files(kit)) - {CERTIFICATE, CA_CERTIFICATE}
        return present == set(signed) and all(
            (kit / path).read_bytes() == text.encode() for path, text in signed.items()
        )

    def _write(
        self,
        kit: Path,
        name: str,
        role: str,
        part: ParticipantSpec | AdminSpec,
        certificate: x509.Certificate | None,
        signed: dict[str, str],
    ) -> None:
        authority = self.authority  # before anything is written: its passphrase may be wrong
        building = kit.with_name(f".{kit.name}.{os.getpid()}.tmp")
        shutil.rmtree(building, ignore_errors=True)
        for folder in (building, building / "startup", building / "local", building / "transfer"):
            folder.mkdir(mode=0o700)
        for path, text in signed.items():
            (building / path).write_text(text, encoding="utf-8")
            (building / path).chmod(0o755 if path.endswith(".sh") else 0o644)
        key_path = kit / signing.PRIVATE_KEY
        if key_path.exists() and not self._is_revoked(kit):  # the key of a revoked certificate is never used again
            key_bytes = key_path.read_bytes()
            key = serialization.load_pem_private_key(key_bytes, None)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            key_bytes = certificates.private_key_pem(key)
        if certificate is None:
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            certificate = authority.issue(self._subject(name, role, part), key.public_key())
            revocation.note_issued(self._workspace, certificate)
        pem = serialization.Encoding.PEM
        write_private(building / signing.PRIVATE_KEY, key_bytes)
        write_private(building / CERTIFICATE, certificate.public_bytes(pem), 0o644)
        write_private(building / CA_CERTIFICATE, self.ca.public_bytes(pem), 0o644)
        files = signing.covered_files(building)
        write_private(building / signing.SIGNATURE, signing.sign(authority, files, name, self._spec.name), 0o644)
        old = kit.with_name(f".{kit.name}.{os.getpid()}.old")
        if kit.exists():
            for free in signing.FREE:
                if (kit / free).exists():
                    shutil.rmtree(building / free)
                    shutil.copytree(kit / free, building / free, symlinks=True)
            kit.rename(old)
        building.rename(kit)
        shutil.rmtree(old, ignore_errors=True)

    def _write_local(self, kit: Path, role: str, part: ParticipantSpec | AdminSpec) -> bool:
        """Writes the files under `local/` that are new or still as they were written here; whether one changed.

        The endpoint is different: it is written once and then kept by `up`.
        """
        changed = False
        for path, text in layout.local_files(self._spec, role, part).items():
            file, key = kit / path, f"{kit.name}/{path}"
            wanted = hashlib.sha256(text.encode()).hexdigest()
            present = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
            ours = present is None or (path != ENDPOINT and present == self._written.get(key))
            if not ours or present == wanted:
                continue
            write_private(file, text.encode(), 0o644)
            self._written[key] = wanted
            write_private(self._written_path, json.dumps(self._written, indent=1, sort_keys=True).encode())
            changed = True
        return changed


def _zip(kit: Path) -> Path:
    """`NAME.zip` beside the kit, with the modes that unzip restores. Written whole or not at all."""
    target = kit.with_name(f"{kit.name}.zip")
    temporary = kit.with_name(f".{kit.name}.zip.{os.getpid()}.tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        temporary.chmod(0o600)
        for path in sorted(kit.rglob("*")):
            name = f"{kit.name}/{path.relative_to(kit).as_posix()}" + ("/" if path.is_dir() else "")
            info = zipfile.ZipInfo(name, _ZIP_TIME)
            info.external_attr = path.stat().st_mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, b"" if path.is_dir() else path.read_bytes())
    if target.exists() and target.read_bytes() == temporary.read_bytes():
        temporary.unlink()
    else:
        temporary.replace(target)
    return target
