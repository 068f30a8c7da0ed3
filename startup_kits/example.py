"""The commented federation.yml that `fedspan init` writes."""

from __future__ import annotations

EXAMPLE = """\
# A federation: one server, sites that hold data, and the people who run jobs.
#   fedspan validate     checks this file and touches nothing
#   fedspan provision    makes the certificates and a signed startup kit for each participant
#   fedspan plan         shows what would be made, what it costs, and what would be open from where
#   fedspan up           makes it (with --sandbox: in emulated clouds on this machine, without any account)
version: 1
name: {name}                          # prefix and tag of every cloud resource
residency: [EU]                       # a region outside is refused before anything is made; leave it out to allow all

defaults:
  owner: fl-lead@hospital-a.example   # tag
  ssh_from: auto                      # your address now, or CIDRs; never 0.0.0.0/0

server:
  target: azure
  region: westeurope
  size: Standard_D4s_v5
  port: 8002                          # the only port: gRPC, mutual TLS
  # hostname: fl.hospital-a.example   # optional: a DNS name of yours, added to the server's certificate

sites:
  site-1:
    target: aws
    region: eu-central-1
    gpus: {{count: 1, memory: 16GB}}    # a size is chosen; or name it: size: g4dn.xlarge
    # torch: image                    # with GPUs: the image's; or from an index, which the machine asks by itself:
    # torch: {{index: https://download.pytorch.org/whl/cu126, version: "2.13.0"}}
    disk: 100GB
    data: {{digits: /srv/data/digits}}  # where it lies there; jobs ask for "digits", it never moves
  site-2:
    target: aws
    region: eu-west-1
    # account: "222222222222"         # hospital B's account; refused if the credentials are another's
    # profile: hospital-b             # the profile of your AWS configuration that reaches it
    size: m7i.large
    data: {{digits: /srv/data/digits}}
  site-3:
    target: kit                       # on premises: its owner runs start.sh
    # target: host                    # = we deploy it by SSH; then also: host: 10.20.0.5, user: fedspan
    egress: [203.0.113.7/32]          # what the server sees behind the hospital's NAT
    data: {{digits: /srv/data/digits}}

admins:
  ana@hospital-a.example:
    role: lead                        # lead, member or observer
    from: [198.51.100.0/24]           # may reach the server's port
"""


def example(name: str = "digits") -> str:
    """The example for a federation of this name."""
    return EXAMPLE.format(name=name)
