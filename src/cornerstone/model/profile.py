"""Profiles: one AOS release, one AHV build, a payload and sizes, read from profiles/NAME.yaml.

pydantic checks each file as it enters; a profile that extends another is merged over it; inside, a Profile is a
frozen dataclass. Every error says file:line and the path of the value, in the file where the value is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from cornerstone.model.catalogue import did_you_mean_release, load_catalogue
from cornerstone.model.error import CornerstoneError
from cornerstone.model.located import Document, Where, did_you_mean, load, located_error, validate
from cornerstone.model.printable import LONGEST, printable, quoted
from cornerstone.model.release import Catalogue
from cornerstone.model.version import AhvVersion, AosVersion

# The name becomes a directory below output/ and part of the ISO's name.
NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
LONGEST_PATH = 200
LONGEST_DESCRIPTION = 200
MIB = 1024 ** 2
UNITS = {"MiB": MIB, "GiB": 1024 * MIB, "TiB": 1024 ** 2 * MIB}
_SIZE = re.compile(rf"([1-9][0-9]{{0,6}}) ?({'|'.join(UNITS)})")
_OWN_KEYS = ("name", "extends", "abstract", "description")


def parse_size(value: Any) -> int:
    """"20 GiB" as bytes; units MiB, GiB and TiB, whole numbers."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError("size", "'{value}' isn't a size",
                                  {"value": printable(str(value), LONGEST),
                                   "hint": "write a whole number and a unit: 20 GiB, 512 MiB"})
    return int(match[1]) * UNITS[match[2]]


def format_size(size: int) -> str:
    """Bytes in the largest unit that divides them, as a profile would write it: 20 GiB."""
    unit = next((unit for unit in reversed(UNITS) if size % UNITS[unit] == 0), None)
    return f"{size // UNITS[unit]} {unit}" if unit else f"{size} B"


Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(
    {"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["20 GiB", "512 MiB"]})]


def _one_line(value: str) -> str:
    """Refuse what isn't one printable line: the description is printed, and goes into the manifest."""
    problem = ("is empty" if not value.strip() else "has characters that don't print" if not value.isprintable()
               else f"has {len(value)} characters" if len(value) > LONGEST_DESCRIPTION else "")
    if problem:
        raise PydanticCustomError("one_line", "{problem}", {
            "problem": problem, "hint": f"write one line of at most {LONGEST_DESCRIPTION} characters"})
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReferenceFile(_Section):
    """Settings of the reference payload."""

    suite: Literal["bookworm", "trixie"] | None = Field(None, description="Debian suite that both roots are built from")


class HypervisorFile(_Section):
    """Sizes on the boot disk."""

    root_slot: Size | None = Field(None, description="size of each of the two root slots on the boot disk")


class ControllerFile(_Section):
    """Sizes of the Controller VM."""

    memory: Size | None = Field(None, description="memory of the Controller VM")
    vcpus: Annotated[StrictInt, Field(ge=1, le=256)] | None = Field(
        None, description="virtual CPUs; left out, as many as the NUMA node of its disks has cores, 8 to 12")
    disk: Size | None = Field(None, description="size of its virtual system disk")
    root_slot: Size | None = Field(None, description="size of each of the two root slots on that disk")


class MachineFile(_Section):
    """What the machines have to be; `any` where it doesn't matter."""

    firmware: Literal["any", "uefi", "secureboot"] | None = Field(None, description="how a machine has to be booted")
    tpm: Literal["any", "2.0"] | None = Field(None, description="the TPM that a machine has to have")


class ProfileFile(_Section):
    """One profile file. A key that is left out comes from the profile that this one extends."""

    name: str | None = Field(None, pattern=f"^{NAME.pattern}$", description="the file's name without .yaml")
    extends: str | None = Field(None, description="name of another profile; this one is merged over it")
    abstract: StrictBool = Field(False, description="only for others to extend: not built, not in the matrix")
    description: Annotated[str, AfterValidator(_one_line), WithJsonSchema(
        {"type": "string", "maxLength": LONGEST_DESCRIPTION})] | None = Field(
        None, description="one sentence for listings")
    aos: str | None = Field(None, description="AOS release from versions/aos.yaml, in quotes")
    ahv: str | None = Field(None, description="AHV build from versions/ahv.yaml, in quotes")
    payload: Literal["reference", "vendor"] | None = Field(None, description="what fills the roles; vendor comes later")
    reference: ReferenceFile | None = None
    hypervisor: HypervisorFile | None = None
    controller: ControllerFile | None = None
    machine: MachineFile | None = None


@dataclass(frozen=True)
class Reference:
    """suite: the Debian suite of the reference payload, bookworm or trixie."""

    suite: str


@dataclass(frozen=True)
class HypervisorSizes:
    """root_slot: bytes of each of the two root slots on the boot disk."""

    root_slot: int


@dataclass(frozen=True)
class ControllerSizes:
    """The Controller VM: memory, disk and root_slot (each of two) in bytes; vcpus None: by the machine (sizing.py)."""

    memory: int
    disk: int
    root_slot: int
    vcpus: int | None = None


@dataclass(frozen=True)
class MachineNeeds:
    """firmware: any, uefi or secureboot; tpm: any or 2.0."""

    firmware: str = "any"
    tpm: str = "any"


@dataclass(frozen=True)
class Profile:
    """A whole profile: defaults merged, values checked, releases known to the catalogue. aos, ahv: as in the catalogue.

    inherits: the profiles that it extends, nearest first.
    """

    name: str
    inherits: tuple[str, ...]
    description: str
    aos: str
    ahv: str
    payload: str
    reference: Reference
    hypervisor: HypervisorSizes
    controller: ControllerSizes
    machine: MachineNeeds = MachineNeeds()

    def resolved(self) -> dict[str, Any]:
        """Everything that the build depends on, for the manifest: JSON-able, fixed order of keys, sizes in bytes."""
        return {
            "name": self.name, "inherits": list(self.inherits), "description": self.description,
            "aos": self.aos, "ahv": self.ahv, "payload": self.payload,
            "reference": {"suite": self.reference.suite},
            "hypervisor": {"root_slot": self.hypervisor.root_slot},
            "controller": {"memory": self.controller.memory, "vcpus": self.controller.vcpus,
                           "disk": self.controller.disk, "root_slot": self.controller.root_slot},
            "machine": {"firmware": self.machine.firmware, "tpm": self.machine.tpm},
        }

    def lines(self) -> list[str]:
        """The same for people, one value a line as .path = value, to show before the build."""
        rows = []
        for key, value in self.resolved().items():
            if isinstance(value, dict):
                rows += [f".{key}.{inner} = {format_size(number) if inner in _SIZES else number}"
                         for inner, number in value.items() if number is not None]
            else:
                rows.append(f".{key} = {', '.join(value) if isinstance(value, list) else value}")
        return rows


_SIZES = {"root_slot", "memory", "disk"}


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
    _check_releases(values, marks, catalogue or load_catalogue(root))
    return Profile(leaf.name, tuple(file.name for file in chain[1:]), leaf.file.description or "", values["aos"],
                   values["ahv"], values["payload"], Reference(**values["reference"]),
                   HypervisorSizes(**values["hypervisor"]), ControllerSizes(**values["controller"]),
                   MachineNeeds(**values.get("machine", {})))


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
    ("aos",), ("ahv",), ("payload",), ("reference", "suite"), ("hypervisor", "root_slot"), ("controller", "memory"),
    ("controller", "disk"), ("controller", "root_slot"),
)


def _files(root: Path) -> list[Path]:
    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(part or 0), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.stem)]
    return sorted((root / "profiles").glob("*.yaml"), key=natural)


def _is_file(path: Path) -> bool:
    """Whether path is a file; a name that no file system takes, too long or with a NUL, isn't one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_abstract(path: Path) -> bool:
    try:
        return load(path, path.name).data.get("abstract") is True
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
                values[key] = values.get(key, {}) | value
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


if __name__ == "__main__":
    print(schema_text(load_catalogue(Path.cwd())), end="")
