"""This node as the others know it: what it says of itself, whom it takes for a member, and its certificate."""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from cornerstone.cvm.membership.kept import CERTIFICATE, MEMBER, load, write
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.serde import Format
from cornerstone.model.contracts import ports
from cornerstone.model.contracts.node import NodeConfig

PORT = ports.MEMBERSHIP
SAME_ISO = "boot all nodes of the cluster from the same customised ISO, or from copies of it"


@dataclass(frozen=True)
class Member:
    """A member of a cluster, as it describes itself to the others.

    address: its CVM's; fsid: of its cluster, "" before it is a member.

    beside: other releases of AOS that may be in one cluster with its own.
    """

    address: str
    cluster: str
    members: tuple[str, ...]
    profile: str
    aos: str
    fsid: str = ""
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: NodeConfig) -> Member:
        """From node.json. A node of which the site says no cluster is the only member of its own."""
        address, cluster = config.cvm.address.partition("/")[0], config.cluster
        return cls(address, cluster.name if cluster else "", cluster.members if cluster else (address,),
                   config.profile, config.aos, beside=config.aos_beside)

    def now(self, folder: Path) -> Member:
        """With the cluster that it is a member of by now."""
        membership = load(folder)
        return replace(self, fsid=membership.fsid) if membership else self

    @property
    def first(self) -> bool:
        """Whether it is the member that forms the cluster."""
        return self.address == self.members[0]

    @property
    def others(self) -> tuple[str, ...]:
        """The addresses of the other members."""
        return tuple(address for address in self.members if address != self.address)


MEMBER_FORMAT = Format("member", Member, "a CVM, with each request, and when it takes one in",
                       "the members' service, the CVM that joins", message=True)


def refusal(ours: Member, theirs: Member) -> str:
    """Why two nodes can't be members of one cluster, or "": the one place that decides it.

    The releases have to be equal, or one of the two knows that the catalogue has an upgrade from one to the other. The
    older was often made before anybody knew of the newer.
    """
    if ours.fsid and theirs.fsid and ours.fsid != theirs.fsid:
        return (f"{ours.address} is a member of the cluster {ours.fsid} and {theirs.address} of {theirs.fsid}: there "
                "is no second formation")
    if ours.cluster != theirs.cluster:
        return f"{ours.address} belongs to the cluster {ours.cluster!r} and {theirs.address} to {theirs.cluster!r}"
    if ours.aos != theirs.aos and theirs.aos not in ours.beside and ours.aos not in theirs.beside:
        return (f"{ours.address} has AOS {ours.aos} of profile {ours.profile} and {theirs.address} AOS {theirs.aos} of "
                f"profile {theirs.profile}: a cluster is formed of one release, or of two with a known direct upgrade")
    if ours.members != theirs.members:
        return (f"the members are {', '.join(ours.members)} to {ours.address}, but {', '.join(theirs.members)} to "
                f"{theirs.address}")
    return ""


def certify(member: Member, secret: str, folder: Path) -> None:
    """See to it that the node has its certificate. secret: the bootstrap secret as it came, "" without one.

    Before it is a member, a node whose secret was corrected gets another. CornerstoneError when it needs the secret
    and hasn't got it.
    """
    path, title = folder / MEMBER, f"{member.address} of {member.cluster}\n"
    kept = path.read_text() if path.exists() else ""
    good = kept.startswith(title)
    if good and (not secret or load(folder)):
        return
    if not secret and member.others:
        raise CornerstoneError("this node has no bootstrap secret, and nothing else to show to the other members",
                               SAME_ISO, Code.REFUSED)
    # it takes a while to load, and only here is it needed
    from cornerstone.cvm.membership.authority import Authority, secret_bytes
    # who is alone has nobody to share a secret with
    authority = Authority(secret_bytes(secret) if secret else secrets.token_bytes(32), member.cluster)
    if not (good and kept.endswith(authority.certificate)):
        write(path, title + authority.certify(member.address) + authority.certificate)


def context(purpose: int, folder: Path) -> ssl.SSLContext:
    """TLS 1.3 with this node's certificate, asking for one of the same authority. purpose: an ssl.PROTOCOL_TLS_ one."""
    path = folder / MEMBER
    try:
        certificates = CERTIFICATE.findall(path.read_text())
    except FileNotFoundError:
        raise CornerstoneError("this node has no certificate yet", "see: genesis status", Code.REFUSED) from None
    made = ssl.SSLContext(purpose)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_cert_chain(path)
    made.load_verify_locations(cadata=certificates[-1])
    return made
