"""The evidence beside an ISO: manifest, report, bills of materials, provenance, and signed checksums of them all.

docs/evidence.md says what each file proves. They are written beside and renamed; the build's record says of which size
and time they are, so that the next build sees by stat alone whether one is missing or was changed, and mends it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornerstone.customize.iso_area import empty_areas
from cornerstone.customize.iso_image import Image
from cornerstone.factory.evidence import provenance, report
from cornerstone.factory.packages.elements import ROOTS
from cornerstone.factory.store.code import code_inputs, combined
from cornerstone.lib.atomic import beside
from cornerstone.lib.files import is_stamp
from cornerstone.model.contracts.manifest import NAME, SIGNATURE_NAME, digest

if TYPE_CHECKING:
    from cornerstone.factory.build.plan import Plan

CHECKOUT = Path(__file__).resolve().parents[4]
KEY_NAME = "manifest.pem"
SUMS, SUMS_SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
BOMS = (*(f"sbom-{root}.cdx.json" for root in ROOTS), "sbom-iso.cdx.json")
# all that SHA256SUMS has besides the ISO
LISTED = (NAME, SIGNATURE_NAME, KEY_NAME, report.JSON_NAME, report.TEXT_NAME, provenance.NAME, *BOMS)


def write(target: Path, plan: Plan, image: Path, earlier: Mapping | None = None) -> dict:
    """Write the side files of an ISO into the folder of target, its place; image is the file itself, whole already.

    earlier is what this returned when the ISO was made, for files that are written anew: the ISO's sha256 and its
    source stay as they were then. Returns the record of it for is_current.
    """
    if not earlier or not {"sha256", "source"} <= earlier.keys():
        with image.open("rb") as file:
            earlier = {"sha256": digest(file)[1], "source": provenance.source(CHECKOUT)}
    record = {"sha256": earlier["sha256"], "source": earlier["source"], "made_by": _made_by(), "files": {}}
    contents = _contents(target.name, plan, image, record["sha256"], record["source"])
    with contextlib.ExitStack() as written:
        # all are written before the first is put into its place
        # named after the ISO: what a killed build leaves goes with the next one's cleaning up
        paths = {name: written.enter_context(beside(target.with_name(f"{target.name}.{name}"))) for name in contents}
        for name, content in contents.items():
            paths[name].write_bytes(content)
            stat = paths[name].stat()
            record["files"][name] = [stat.st_size, stat.st_mtime_ns]
        for name, path in paths.items():
            path.replace(target.with_name(name))
    return record


def is_record(value: Any) -> bool:
    """Whether a value read from a file has the shape of what write returns; None is that of an ISO without evidence."""
    if value is None:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
        return False
    return (all(isinstance(value.get(name, ""), str) for name in ("sha256", "made_by"))
            and isinstance(value.get("source", {}), dict) and all(map(is_stamp, value["files"].values())))


def is_current(target: Path, record: Mapping | None) -> bool:
    """Whether the side files in the folder of an ISO are those that write() made, and would be made so today."""
    if not record or record.get("made_by") != _made_by():
        return False
    # a name with a slash or a NUL is a ValueError
    with contextlib.suppress(OSError, ValueError):
        stats = {name: target.with_name(name).stat() for name in record["files"]}
        return all([stat.st_size, stat.st_mtime_ns] == record["files"][name] for name, stat in stats.items())
    return False


def _made_by() -> str:
    return f"{combined(code_inputs(write))} cyclonedx-python-lib {metadata.version('cyclonedx-python-lib')}"


def _contents(iso: str, plan: Plan, image: Path, sha256: str, source: dict) -> dict[str, bytes]:
    """Every side file by its name."""
    # its library takes a while to load, and most builds have nothing to write
    from cornerstone.factory.evidence import sbom
    with contextlib.closing(Image(image)) as opened:
        manifest = opened.manifest
        on_iso = file_digests(opened)
        files = {path: opened.content(path) for path in (NAME, SIGNATURE_NAME)}
    roots = {sbom.root_name(lock.root): sbom.root_bom(plan, lock, manifest) for lock in plan.locks.values()}
    files |= {
        KEY_NAME: plan.key.public_pem(), **report.files(plan, manifest, iso, image.stat().st_size, sha256), **roots,
        sbom.ISO_NAME: sbom.iso_bom(plan, manifest, iso, sha256, on_iso, roots),
        provenance.NAME: provenance.envelope(provenance.statement(plan, manifest, iso, sha256, source), plan.key),
    }
    digests = {iso: sha256, **{name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}
    sums = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()
    return {**files, SUMS: sums, SUMS_SIGNATURE: plan.key.sign(sums)}


def file_digests(image: Image) -> dict[str, str]:
    """Path → sha256 of every file on an ISO as built, with its areas empty; those of the manifest as it says."""
    known = {entry.path: entry.sha256 for entry in image.manifest.entries if not entry.masked}
    known |= {path: hashlib.sha256(content).hexdigest() for path, content in empty_areas(image.manifest).items()}
    return {path: known.get(path) or hashlib.sha256(image.content(path)).hexdigest()
            for path in sorted(image.rock_ridge.files)}
