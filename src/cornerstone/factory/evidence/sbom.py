"""The bills of materials beside an ISO (CycloneDX 1.6): one for each root, and one for the ISO that links them.

Every value comes from the lock, the manifest or the layers' inputs, so that equal builds give equal bytes.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from cornerstone import __version__
from cornerstone.factory.store.code import ROOMS, combined
from cornerstone.lib.gpt import derived_id
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR

if TYPE_CHECKING:
    from cornerstone.factory.build.plan import Plan
    from cornerstone.factory.packages.lock import Lock, LockedPackage
    from cornerstone.model.contracts.manifest import Manifest
    from cornerstone.model.profile.additions import Entry

ISO_NAME = "sbom-iso.cdx.json"
# where each root is on the ISO: the hypervisor's as it is, the CVM's in slot A of the disk
ROOT_FILES = {"hypervisor": HYPERVISOR, "cvm": CVM}


def root_name(root: str) -> str:
    """The file name of a root's bill."""
    return f"sbom-{root}.cdx.json"


def root_bom(plan: Plan, lock: Lock, manifest: Manifest) -> bytes:
    """A root's bill: every locked package with the sha256 of its .deb, Cornerstone's own code, a profile's files."""
    inputs = next((layer.inputs for layer in plan.layers.values() if layer.name == lock.root), {})
    made_from = {"elements": inputs["elements"]} if "elements" in inputs else {}
    if any(name.startswith(ROOMS) for name in inputs):
        made_from["rooms"] = combined(inputs, ROOMS)
    own = Component(type=ComponentType.APPLICATION, name="cornerstone", version=__version__,
                    bom_ref=f"cornerstone-{lock.root}", properties=_properties(made_from))
    packages = [_package(package, lock.suite) for package in lock.packages]
    files = plan.profile.additions(lock.root).files
    return _bom(_root(lock), [own, *packages, *map(_file, files.entries if files else ())], manifest,
                root_name(lock.root))


def iso_bom(plan: Plan, manifest: Manifest, name: str, sha256: str, files: Mapping[str, str],
            roots: Mapping[str, bytes]) -> bytes:
    """The ISO's bill: each of its files with its sha256, and the two roots with a link to the bill of each.

    name, sha256: of the ISO as built; files: path on it → sha256; roots: the roots' bills by their file names.
    """
    iso = Component(type=ComponentType.FILE, name=name, version=manifest.identity, bom_ref="iso", hashes=_hash(sha256))
    parts = [Component(type=ComponentType.FILE, name=path, bom_ref=f"file:{path}", hashes=_hash(digest))
             for path, digest in files.items()]
    for lock in plan.locks.values():
        root, bill = _root(lock), root_name(lock.root)
        root.external_references.add(ExternalReference(
            type=ExternalReferenceType.BOM, url=XsUri(bill), hashes=_hash(hashlib.sha256(roots[bill]).hexdigest())))
        root.properties.update(_properties({"file": ROOT_FILES[lock.root]}))
        parts.append(root)
    return _bom(iso, parts, manifest, ISO_NAME)


def _root(lock: Lock) -> Component:
    date = datetime.datetime.fromtimestamp(lock.epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Component(type=ComponentType.OPERATING_SYSTEM, name=f"{lock.root} root, Debian {lock.suite}", version=date,
                     bom_ref=f"root:{lock.root}")


def _package(package: LockedPackage, suite: str) -> Component:
    url = PackageURL("deb", "debian", package.name, package.version, {"arch": package.architecture, "distro": suite})
    return Component(name=package.name, version=package.version, purl=url, bom_ref=str(url),
                     hashes=_hash(package.sha256))


def _file(entry: Entry) -> Component:
    """A file that the profile lays over a root; of a link, where it leads."""
    if entry.kind == "link":
        return Component(type=ComponentType.FILE, name=entry.path, bom_ref=f"file:{entry.path}",
                         properties=_properties({"link": entry.content}))
    return Component(type=ComponentType.FILE, name=entry.path, bom_ref=f"file:{entry.path}",
                     hashes=_hash(entry.content))


def _bom(subject: Component, parts: Iterable[Component], manifest: Manifest, name: str) -> bytes:
    profile = manifest.profile
    payload = profile["payload"] + ": an open stack, not Nutanix software" * (profile["payload"] == "reference")
    metadata = BomMetaData(
        component=subject, timestamp=datetime.datetime.fromtimestamp(manifest.epoch, datetime.UTC),
        properties=_properties({
            "identity": manifest.identity, "profile": profile["name"], "aos": profile["aos"], "ahv": profile["ahv"],
            "payload": payload, "signed": manifest.signed}))
    bom = Bom(components=parts, metadata=metadata, serial_number=derived_id("sbom", manifest.identity, name))
    bom.register_dependency(subject, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode() + b"\n"


def _hash(sha256: str) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]


def _properties(words: Mapping[str, object]) -> list[Property]:
    return [Property(name=f"cornerstone:{name}", value=str(value)) for name, value in words.items()]
