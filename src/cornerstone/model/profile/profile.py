"""Profiles: one AOS release, one AHV build, a payload and sizes, read from profiles/NAME.yaml.

pydantic checks each file as it enters; a profile that extends another is merged over it; inside, a Profile is a
frozen dataclass. Every error says file:line and the path of the value, in the file where the value is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.printable import printable, quoted
from cornerstone.lib.yaml_document import Document, Where, did_you_mean, load, located_error, validate
from cornerstone.model.catalogue.catalogue import did_you_mean_release, load_catalogue
from cornerstone.model.catalogue.release import Catalogue
from cornerstone.model.catalogue.version import AhvVersion, AosVersion
from cornerstone.model.profile.additions import Additions, read_tree, unknown_replacements
from cornerstone.model.profile.fields import NAME, ProfileFile, Suite, format_size

LONGEST_PATH = 200
_OWN_KEYS = ("name", "extends", "abstract", "description")


@dataclass(frozen=True)
class Reference:
    """suite: the Debian suite of the reference payload, bookworm or trixie."""

    suite: str


@dataclass(frozen=True)
class HypervisorSizes:
    """root_slot: bytes of each of the two root slots on the boot disk; extra: what is added to the root."""

    root_slot: int
    extra: Additions = Additions()


@dataclass(frozen=True)
class CvmSizes:
    """The Controller VM: memory, disk and root_slot (each of two) in bytes; vcpus None: by the machine (sizing.py).

    extra: what is added to its root.
    """

    memory: int
    disk: int
    root_slot: int
    vcpus: int | None = None
    extra: Additions = Additions()


@dataclass(frozen=True)
class MachineNeeds:
    """firmware: any, uefi or secureboot; tpm: any or 2.0."""

    firmware: str = "any"
    tpm: str = "any"


@dataclass(frozen=True)
class Profile:
    """A whole profile: defaults merged, values checked, releases known to the catalogue. aos, ahv: as in the catalogue.

    inherits: the profiles that it extends, nearest first. argument: what names it on a command line, its path if it
    isn't in profiles/. aos_beside: the releases that may be in one cluster with aos, by the catalogue.
    """

    name: str
    inherits: tuple[str, ...]
    description: str
    aos: str
    ahv: str
    payload: str
    reference: Reference
    hypervisor: HypervisorSizes
    cvm: CvmSizes
    machine: MachineNeeds = MachineNeeds()
    argument: str = field(default="", compare=False)
    aos_beside: tuple[str, ...] = ()

    def additions(self, root: str) -> Additions:
        """Return the additions of the profile to a root; root: hypervisor or cvm."""
        return {"hypervisor": self.hypervisor, "cvm": self.cvm}[root].extra

    def resolved(self) -> dict[str, Any]:
        """Everything that the build depends on, for the manifest: JSON-able, fixed order of keys, sizes in bytes.

        A root without additions has no key `extra`, and a release without a known upgrade no aos_beside.
        """
        extra = {root: {"extra": found} if (found := self.additions(root).resolved()) else {}
                 for root in ("hypervisor", "cvm")}
        return {
            "name": self.name, "inherits": list(self.inherits), "description": self.description,
            "aos": self.aos, "ahv": self.ahv, "payload": self.payload,
            "reference": {"suite": self.reference.suite},
            "hypervisor": {"root_slot": self.hypervisor.root_slot, **extra["hypervisor"]},
            "cvm": {"memory": self.cvm.memory, "vcpus": self.cvm.vcpus,
                           "disk": self.cvm.disk, "root_slot": self.cvm.root_slot, **extra["cvm"]},
            "machine": {"firmware": self.machine.firmware, "tpm": self.machine.tpm},
            **({"aos_beside": list(self.aos_beside)} if self.aos_beside else {}),
        }

    def lines(self) -> list[str]:
        """The same for people, one value a line as .path = value, to show before the build."""
        rows = []
        for key, value in self.resolved().items():
            if isinstance(value, dict):
                extra = {f"extra.{inner}": found for inner, found in value.pop("extra", {}).items()}
                rows += [f".{key}.{inner} = {format_size(found) if inner in _SIZES else _shown(found)}"
                         for inner, found in (value | extra).items() if found is not None]
            else:
                rows.append(f".{key} = {_shown(value)}")
        return rows


_SIZES = {"root_slot", "memory", "disk"}


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def load_profile(name_or_path: str, root: Path, catalogue: Catalogue | None = None) -> Profile:
    """Read a profile by name (root/profiles/NAME.yaml) or by the path of a YAML file.

    root: the repository's root. catalogue: versions/ if already loaded. CornerstoneError for anything that is wrong.
    """
    chain = _chain(_find(name_or_path, root), root)
    values, marks = _merge(chain)
    leaf = chain[0]
    if leaf.file.abstract:
        raise leaf.document.error(("abstract",), f"{leaf.name} is only for others to extend",
                                  "choose another profile, or write one that extends it")
    for where in _REQUIRED:
        if where not in marks:
            raise leaf.document.error(where, "is missing", f"add it here or in a profile that {leaf.name} extends")
    if values["payload"] == "vendor":
        raise located_error(marks["payload",], ("payload",), "the vendor payload can't be built yet",
                            "use payload: reference, which fills every role with open software")
    catalogue = catalogue or load_catalogue(root)
    _check_releases(values, marks, catalogue)
    for key in ("hypervisor", "cvm"):
        values[key]["extra"] = _additions(leaf, key, values[key].get("extra") or {}, marks)
    own = leaf.path.resolve().parent == (root / "profiles").resolve()
    return Profile(leaf.name, tuple(file.name for file in chain[1:]), leaf.file.description or "", values["aos"],
                   values["ahv"], values["payload"], Reference(**values["reference"]),
                   HypervisorSizes(**values["hypervisor"]), CvmSizes(**values["cvm"]),
                   MachineNeeds(**values.get("machine", {})), leaf.name if own else str(leaf.path),
                   tuple(map(str, catalogue.beside(AosVersion.parse(values["aos"])))))


def _additions(leaf: _Loaded, key: str, extra: dict[str, Any], marks: dict[Where, str]) -> Additions:
    """What is added to a root, with its tree read; extra: the merged values below .KEY.extra."""
    def fail(inner: str, message: str, hint: str) -> CornerstoneError:
        return located_error(marks[key, "extra", inner], (key, "extra", inner), message, hint)

    tree = None
    if extra.get("files"):
        below, name = extra["files"]
        try:
            tree = read_tree(below / name, below)
        except CornerstoneError as error:
            raise fail("files", f"{quoted(name)}: {error.message}", error.hint) from None
    replace, packages = extra.get("replace") or (), extra.get("packages") or ()
    if unknown := unknown_replacements(replace, tree):
        raise fail("replace", f"{quoted(unknown[0])} isn't a file of .{key}.extra.files", "correct it, or take it out")
    if packages and leaf.name in get_args(Suite):
        raise fail("packages", f"the lock of the profile {leaf.name} would have the name of the suite's",
                   "give the profile's file another name")
    return Additions(tuple(packages), tree, tuple(replace), tuple(extra.get("kernel_arguments") or ()))


def profile_names(root: Path) -> list[str]:
    """The profiles that can be built, in release order; abstract ones are left out, malformed ones are not."""
    return [path.stem for path in _files(root) if not _is_abstract(path)]


@dataclass(frozen=True)
class _Loaded:
    name: str
    path: Path
    document: Document
    file: ProfileFile


_REQUIRED: tuple[Where, ...] = (
    ("aos",), ("ahv",), ("payload",), ("reference", "suite"), ("hypervisor", "root_slot"), ("cvm", "memory"),
    ("cvm", "disk"), ("cvm", "root_slot"),
)


def _files(root: Path) -> list[Path]:
    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(part or 0), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.stem)]
    return sorted((root / "profiles").glob("*.yaml"), key=natural)


def _is_file(path: Path) -> bool:
    """Whether path is a file; a name that no file system takes, too long or with a NUL, isn't one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_abstract(path: Path) -> bool:
    try:
        return _is_file(path) and load(path, path.name).data.get("abstract") is True
    except CornerstoneError:
        return False


def _find(name_or_path: str, root: Path) -> Path:
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path = Path(name_or_path)
        if not _is_file(path):
            raise CornerstoneError(f"there is no profile file {printable(name_or_path, LONGEST_PATH)}",
                                   f"give a file, or a name: {', '.join(profile_names(root))}")
        return path
    path = root / "profiles" / f"{name_or_path}.yaml"
    if not NAME.fullmatch(name_or_path) or not _is_file(path):
        raise CornerstoneError(f"there is no profile {quoted(name_or_path)}",
                               did_you_mean(name_or_path, profile_names(root), "profiles"))
    return path


def _chain(path: Path, root: Path) -> list[_Loaded]:
    """The profile and those that it extends, nearest first."""
    chain = [_load_file(path, root)]
    while (parent := chain[-1].file.extends) is not None:
        last = chain[-1]
        if not NAME.fullmatch(parent):
            raise last.document.error(("extends",), f"{quoted(parent)} isn't the name of a profile",
                                      "name a file beside this one or in profiles/, without .yaml")
        candidates = [folder / f"{parent}.yaml" for folder in (last.path.parent, root / "profiles")]
        found = next(filter(_is_file, candidates), None)
        if found is None:
            known = [file.stem for file in _files(root) if file.stem != last.name]
            raise last.document.error(("extends",), f"there is no profile {quoted(parent)}",
                                      did_you_mean(parent, known, "profiles"))
        if found.resolve() in [loaded.path.resolve() for loaded in chain]:
            circle = " extends ".join([*(loaded.name for loaded in chain), parent])
            raise last.document.error(("extends",), f"goes in a circle: {circle}", "let one of them extend nothing")
        chain.append(_load_file(found, root))
    return chain


def _load_file(path: Path, root: Path) -> _Loaded:
    try:
        label = str(path.resolve().relative_to(root.resolve()))
    except ValueError:
        label = str(path)
    document = load(path, label)
    file = validate(ProfileFile, document)
    name = path.name.removesuffix(".yaml").removesuffix(".yml")
    if not NAME.fullmatch(name):
        raise CornerstoneError(f"{label}: {quoted(name)} can't be the name of a profile",
                               "use lower-case letters, digits, dots and dashes in the file's name")
    if file.name is not None and file.name != name:
        raise document.error(("name",), f"{quoted(file.name)} isn't the file's name",
                             f"write name: {name}, or rename the file")
    return _Loaded(name, path, document, file)


def _merge(chain: list[_Loaded]) -> tuple[dict[str, Any], dict[Where, str]]:
    """The values, nearest profile last, and for each the file:line where it is written."""
    values: dict[str, Any] = {}
    marks: dict[Where, str] = {}
    for loaded in reversed(chain):
        for key, value in loaded.file.model_dump(exclude_unset=True).items():
            if key in _OWN_KEYS:
                continue
            if isinstance(value, dict):
                before = values.get(key, {})
                if "extra" in value:
                    extra = value["extra"]
                    marks |= {(key, "extra", inner): loaded.document.at((key, "extra", inner)) for inner in extra}
                    if extra.get("files"):
                        extra["files"] = (loaded.path.parent, extra["files"])
                    value["extra"] = (before.get("extra") or {}) | extra
                values[key] = before | value
                marks |= {(key, inner): loaded.document.at((key, inner)) for inner in value}
            else:
                values[key] = value
                marks[key,] = loaded.document.at((key,))
    return values, marks


def _check_releases(values: dict[str, Any], marks: dict[Where, str], catalogue: Catalogue) -> None:
    releases = [str(release.version) for release in catalogue.releases]
    builds = [str(build.version) for build in catalogue.builds]
    _check_release(values["aos"], marks["aos",], "aos", AosVersion.parse, releases, ())
    pairs = [str(pairing.ahv) for pairing in catalogue.pairings if str(pairing.aos) == values["aos"]]
    _check_release(values["ahv"], marks["ahv",], "ahv", AhvVersion.parse, builds, pairs)


def _check_release(given: str, at: str, key: str, parse: Callable[[str], AosVersion | AhvVersion],
                   known: Sequence[str], better: Sequence[str]) -> None:
    """better: releases to suggest before any that are only spelled alike."""
    try:
        version = str(parse(given))
    except CornerstoneError as error:
        raise located_error(at, (key,), error.message, error.hint) from None
    if version not in known:
        hint = f"the catalogue's pairing is {', '.join(better)}" if better else did_you_mean_release(version, known)
        raise located_error(at, (key,), f"the catalogue has no {key.upper()} {version}", hint)
    if version != given:
        # One spelling in files: the schema can then offer and check the known ones.
        raise located_error(at, (key,), f"{quoted(given)} isn't the catalogue's spelling", f'write {key}: "{version}"')


class _Schema(GenerateJsonSchema):
    """JSON Schema as an editor wants it: a key is there with a value or not there, so no null and no null defaults."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


def schema_text(catalogue: Catalogue) -> str:
    """The JSON Schema of a profile file, with the catalogue's releases as choices; profiles/schema.json holds it."""
    schema = ProfileFile.model_json_schema(schema_generator=_Schema)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Cornerstone profile"}
    schema["properties"]["aos"]["enum"] = [str(release.version) for release in catalogue.releases]
    schema["properties"]["ahv"]["enum"] = [str(build.version) for build in catalogue.builds]
    return json.dumps(schema, indent=2) + "\n"
