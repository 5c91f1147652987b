"""Checks of the evidence beside an ISO: signed checksums, provenance, bills of materials, report.

An ISO may travel without them; what isn't there is said and not refused. What is there must be whole and signed.
"""

from __future__ import annotations

import errno
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping

from cornerstone.factory.evidence import provenance, report
from cornerstone.factory.evidence.evidence import BOMS, KEY_NAME, LISTED, SUMS, SUMS_SIGNATURE, file_digests
from cornerstone.factory.iso.iso_checks import CHECKS, Absent, Subject, check
from cornerstone.factory.signing.signing import check_signature
from cornerstone.factory.verify import boot_checks  # noqa: F401
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.files import read_regular
from cornerstone.lib.json_text import JsonProblem, parse
from cornerstone.model.contracts.manifest import NAME, SIGNATURE_NAME

# a bill of materials has some 200 KiB
MOST = 64 << 20
HINT = "it was changed, or belongs to another ISO: get the files anew from where the ISO was built"
ISO_BOM = BOMS[-1]
# a fault of the ISO changes its checksum too, and is better said by the check that knows what it means
ISO_CHECKS = tuple(CHECKS)


def beside(subject: Subject, name: str) -> bytes | None:
    """The content of a side file, None when there is none.

    Raises CornerstoneError (VERIFY) for a link, a device, a pipe, or a file of more than MOST bytes.
    """
    path = subject.path.absolute().with_name(name)
    try:
        return read_regular(path, MOST)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise CornerstoneError(f"{name} beside the ISO can't be read: {why}", HINT, Code.VERIFY) from error


def needed(subject: Subject, name: str) -> bytes:
    """The content of a side file. Raises Absent without it."""
    content = beside(subject, name)
    if content is None:
        raise Absent(f"{name} isn't beside the ISO")
    return content


def parsed(subject: Subject, name: str) -> dict:
    """A side file that is a JSON object. Raises Absent without it, CornerstoneError (VERIFY) when it isn't one."""
    try:
        record, _ = parse(needed(subject, name), MOST)
    except JsonProblem:
        record = None
    if not isinstance(record, dict):
        raise CornerstoneError(f"{name} is no JSON object", HINT, Code.VERIFY)
    return record


def of_known_form(run: Callable[[Subject], Iterator[str]]) -> Callable[[Subject], Iterator[str]]:
    """Make a check tell of a file that isn't of the form that it reads."""
    @functools.wraps(run)
    def wrapper(subject: Subject) -> Iterator[str]:
        try:
            yield from run(subject)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            yield f"a file beside the ISO isn't of the form that this release reads: {error!r}"
    return wrapper


@check("evidence", needs=ISO_CHECKS, hint=HINT)
@of_known_form
def evidence(subject: Subject) -> Iterator[str]:
    """SHA256SUMS is signed by the given key, and the ISO as built and each file beside it has the sha256 it says."""
    sums, signature = beside(subject, SUMS), beside(subject, SUMS_SIGNATURE)
    if sums is None:
        # the manifest, the key and the provenance vouch for themselves; without checksums nothing does for the others
        unsigned = [name for name in (SUMS_SIGNATURE, *LISTED)
                    if name not in (NAME, SIGNATURE_NAME, KEY_NAME, provenance.NAME)
                    and beside(subject, name) is not None]
        if unsigned:
            yield f"{SUMS} isn't there, so nothing vouches for {', '.join(unsigned)}"
            return
        raise Absent(f"{SUMS} isn't beside the ISO")
    if signature is None:
        yield f"{SUMS_SIGNATURE} isn't there, so nobody vouches for {SUMS}"
        return
    check_signature(subject.public_pem, sums, signature, SUMS)
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in sums.decode().splitlines())}
    isos = {name: listed.pop(name) for name in list(listed) if name.endswith(".iso")}
    if set(listed) != set(LISTED) or len(isos) != 1:
        yield f"{SUMS} doesn't list one ISO and the files that belong beside it"
        return
    for name, digest in listed.items():
        content = beside(subject, name)
        if content is None:
            yield f"{name} isn't there, and {SUMS} lists it"
        elif hashlib.sha256(content).hexdigest() != digest:
            yield f"{name} does not match {SUMS}"
    if subject.sha256_as_built not in isos.values():
        yield f"{subject.path.name} isn't the ISO that {SUMS} lists"


@check("evidence-manifest", needs=("evidence",), hint=HINT)
@of_known_form
def evidence_manifest(subject: Subject) -> Iterator[str]:
    """The manifest beside the ISO is the one on it."""
    needed(subject, NAME)
    for name in (NAME, SIGNATURE_NAME):
        content = beside(subject, name)
        if content is None:
            yield f"{name} isn't beside the ISO, where {NAME} is"
        elif content != subject.image.content(name):
            yield f"{name} beside the ISO is another than on it"


@check("provenance", needs=("evidence",), hint=HINT)
@of_known_form
def origin(subject: Subject) -> Iterator[str]:
    """The provenance is signed by the given key, and is about this ISO, its profile and its layers."""
    said = provenance.opened(needed(subject, provenance.NAME), subject.public_pem)
    manifest, definition = subject.manifest, said["predicate"]["buildDefinition"]
    internal = definition["internalParameters"]
    facts = {
        "ISO": ([each["digest"]["sha256"] for each in said["subject"]], [subject.sha256_as_built]),
        "kind of build": (definition["buildType"], provenance.BUILD_TYPE),
        "profile": (definition["externalParameters"]["profile"], manifest.profile),
        "identity": (internal["identity"], manifest.identity),
        "kind of key": (internal["signed"], manifest.signed),
    }
    layers = {each["name"].removeprefix("layer "): each["digest"]["sha256"]
              for each in definition["resolvedDependencies"] if each["name"].startswith("layer ") and "digest" in each}
    for what, (says, wanted) in facts.items():
        if says != wanted:
            yield f"{provenance.NAME} names another {what}"
    for layer, digest in layers.items():
        if digest != manifest.entry(provenance.LAYER_FILES[layer]).sha256:
            yield f"{provenance.NAME} names another layer {layer}"


@check("sboms", needs=("evidence",), hint=HINT)
@of_known_form
def sboms(subject: Subject) -> Iterator[str]:
    """The bills of materials name this ISO, each file on it with its sha256, and link to one another."""
    bills = {name: parsed(subject, name) for name in BOMS}
    manifest, profile = subject.manifest, subject.manifest.profile
    wanted = {"identity": manifest.identity, "profile": profile["name"], "aos": profile["aos"], "ahv": profile["ahv"],
              "signed": manifest.signed}
    for name, bill in bills.items():
        said = {each["name"].removeprefix("cornerstone:"): each["value"] for each in bill["metadata"]["properties"]}
        for what in (what for what, value in wanted.items() if said.get(what) != value):
            yield f"{name} names another {what}"
    parts = bills[ISO_BOM]["components"]
    listed = {each["name"]: _sha256(each) for each in parts if each["type"] == "file"}
    digests = file_digests(subject.image)
    for path in sorted(path for path in listed.keys() | digests.keys() if listed.get(path) != digests.get(path)):
        yield f"{ISO_BOM} and the ISO disagree about {path}"
    if _sha256(bills[ISO_BOM]["metadata"]["component"]) != subject.sha256_as_built:
        yield f"{ISO_BOM} is about another ISO"
    links = {link["url"]: _sha256(link) for each in parts for link in each.get("externalReferences", ())}
    for name in BOMS[:-1]:
        if links.get(name) != hashlib.sha256(needed(subject, name)).hexdigest():
            yield f"{ISO_BOM} links to another {name}"


def _sha256(record: Mapping) -> str:
    return next((each["content"] for each in record.get("hashes", ()) if each["alg"] == "SHA-256"), "")


@check("report", needs=("evidence", "sboms"), hint=HINT)
@of_known_form
def told(subject: Subject) -> Iterator[str]:
    """The report names this ISO, its profile, and the packages of the bills of materials."""
    record = parsed(subject, report.JSON_NAME)
    manifest = subject.manifest
    if record["iso"]["sha256"] != subject.sha256_as_built or record["iso"]["identity"] != manifest.identity:
        yield f"{report.JSON_NAME} is about another ISO"
    if record["profile"] != manifest.profile or record["signed"] != manifest.signed:
        yield f"{report.JSON_NAME} names another profile or kind of key"
    for root, packages in record["packages"].items():
        bill = parsed(subject, f"sbom-{root}.cdx.json")["components"]
        if {(p["name"], p["version"]) for p in packages} != {(p["name"], p["version"]) for p in bill if "purl" in p}:
            yield f"{report.JSON_NAME} lists other packages of the {root} root than its bill of materials"
