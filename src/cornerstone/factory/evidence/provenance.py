"""Where an ISO comes from: an in-toto statement with SLSA's provenance v1 predicate, in a signed DSSE envelope.

Nothing in it comes from the clock or from the machine's name, so that two builds of one commit give the same bytes.
Sources: in-toto Attestation Framework v1, SLSA Provenance v1, DSSE v1.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cornerstone import __version__
from cornerstone.customize.iso_image import EFI_IMAGE
from cornerstone.factory.packages.elements import ROOTS, packages_layer
from cornerstone.factory.signing.signing import check_signature
from cornerstone.factory.store.code import combined
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import parse, read_json
from cornerstone.model.contracts.manifest import CVM, FIRST_BOOT, HYPERVISOR, Manifest

if TYPE_CHECKING:
    from cornerstone.factory.build.plan import Plan
    from cornerstone.factory.signing.signing import SigningKey

NAME = "provenance.intoto.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:cornerstone:foundation-iso:1"
BUILDER = "urn:cornerstone:factory:1"
SOURCE = {"name": "source", "uri": "urn:cornerstone:source"}
# the layers that lie on the ISO as one file; the others' bytes are inside these, or in several
LAYER_FILES = {"hypervisor": HYPERVISOR, "cvm-disk": CVM, "first-boot": FIRST_BOOT, "efi-image": EFI_IMAGE}


def source(root: Path) -> dict:
    """The commit of a checkout, as a resource descriptor, and whether its files are those of the commit.

    What git can't say is said to be unknown: a copy without .git has no commit, even inside another checkout.
    """
    if not (root / ".git").exists():
        return {**SOURCE, "annotations": {"commit": "unknown: not a git checkout"}}
    # nothing but this folder's own repository may answer
    env = {"GIT_CEILING_DIRECTORIES": str(root.parent)}

    def git(*words: str) -> str:
        # built with sudo, the checkout is another user's, which git would refuse to read
        return process.read(["git", "-c", f"safe.directory={root}", "-C", root, *words], env=env).strip()
    try:
        commit, changed = git("rev-parse", "HEAD"), git("--no-optional-locks", "status", "--porcelain")
    except CornerstoneError:
        return {**SOURCE, "annotations": {"commit": "unknown: git can't read this checkout"}}
    return {**SOURCE, "digest": {"gitCommit": commit}, "annotations": {"dirty": bool(changed)}}


def statement(plan: Plan, manifest: Manifest, iso: str, sha256: str, source: dict) -> dict:
    """The statement about an ISO: its name and sha256 as built, and what source() said when it was made."""
    layers = plan.layers.values()
    digests = {entry.path: {"sha256": entry.sha256} for entry in manifest.entries}
    roots = {packages_layer(root): root for root in ROOTS}
    locked = {roots.get(layer.name, layer.name): layer.inputs["lock"] for layer in layers if "lock" in layer.inputs}
    locks = [{"name": f"lock of {root}", "uri": f"urn:cornerstone:lock:{root}", "digest": {"sha256": sha256}}
             for root, sha256 in locked.items()]
    made = [{"name": f"layer {layer.name}", "uri": f"urn:cornerstone:layer:{layer.name}:{layer.key}",
             **({"digest": digests[LAYER_FILES[layer.name]]} if layer.name in LAYER_FILES else {}),
             "annotations": {"inputs": layer.all_inputs()}} for layer in layers]
    tools = {name.removeprefix("tool "): value for inputs in (plan.iso_inputs, *(layer.inputs for layer in layers))
             for name, value in inputs.items() if name.startswith("tool ") or name in ("diskimage-builder", "pycdlib")}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": iso, "digest": {"sha256": sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"profile": manifest.profile},
                "internalParameters": {
                    "identity": manifest.identity, "sourceDateEpoch": manifest.epoch, "signed": manifest.signed,
                    "keySha256": hashlib.sha256(plan.key.public_pem()).hexdigest(), "code": combined(plan.iso_inputs)},
                "resolvedDependencies": [source, *locks, *made],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"cornerstone": __version__, **dict(sorted(tools.items()))}}},
        },
    }


def envelope(record: dict, key: SigningKey) -> bytes:
    """A statement in its signed envelope: the file's content."""
    payload = json.dumps(record, indent=1).encode()
    return (json.dumps({
        "payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": hashlib.sha256(key.public_pem()).hexdigest(),
                        "sig": base64.b64encode(key.sign(encoded(PAYLOAD_TYPE, payload))).decode()}]},
        indent=1) + "\n").encode()


def opened(content: bytes, public_pem: bytes) -> dict:
    """The statement in an envelope that this key signed.

    Raises CornerstoneError (VERIFY) when it is malformed, of another type, or not signed by this key.
    """
    try:
        record, _ = parse(content)
        payload_type, payload = record["payloadType"], base64.b64decode(record["payload"], validate=True)
        (signature,) = (base64.b64decode(each["sig"], validate=True) for each in record["signatures"])
    except (ValueError, KeyError, TypeError) as error:
        raise CornerstoneError(f"{NAME} is no DSSE envelope with one signature: {error}", "build again",
                               Code.VERIFY) from error
    check_signature(public_pem, encoded(payload_type, payload), signature, NAME)
    found = read_json(payload, NAME, "build again", Code.VERIFY)
    if payload_type != PAYLOAD_TYPE or (found.get("_type"), found.get("predicateType")) != (STATEMENT_TYPE,
                                                                                           PREDICATE_TYPE):
        raise CornerstoneError(f"{NAME} is no in-toto statement with SLSA provenance", "build again", Code.VERIFY)
    return found


def encoded(payload_type: str, payload: bytes) -> bytes:
    """What DSSE signs (its pre-authentication encoding)."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
