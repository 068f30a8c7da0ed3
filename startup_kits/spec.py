"""The specification of a federation: `load_spec` reads federation.yml into `FederationSpec`."""

from startup_kits.spec_file import load_spec
from startup_kits.spec_models import AdminSpec, Defaults, FederationSpec
from startup_kits.spec_participants import SERVER, Gpus, ParticipantSpec, ServerSpec, SiteSpec

__all__ = [
    "SERVER",
    "AdminSpec",
    "Defaults",
    "FederationSpec",
    "Gpus",
    "ParticipantSpec",
    "ServerSpec",
    "SiteSpec",
    "load_spec",
]
