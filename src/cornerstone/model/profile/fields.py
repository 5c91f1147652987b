"""The keys of a profile file, as pydantic checks them when it enters."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

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
from pydantic_core import PydanticCustomError

from cornerstone.lib.printable import LONGEST, printable
from cornerstone.model.profile.additions import ExtraFile

# The name becomes a directory below output/ and part of the ISO's name.
NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
LONGEST_DESCRIPTION = 200
MIB = 1024 ** 2
UNITS = {"MiB": MIB, "GiB": 1024 * MIB, "TiB": 1024 ** 2 * MIB}
_SIZE = re.compile(rf"([1-9][0-9]{{0,6}}) ?({'|'.join(UNITS)})")


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


Suite = Literal["bookworm", "trixie"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReferenceFile(_Section):
    """Settings of the reference payload."""

    suite: Suite | None = Field(None, description="Debian suite that both roots are built from")


class HypervisorFile(_Section):
    """Sizes on the boot disk, and what is added to the hypervisor's root."""

    root_slot: Size | None = Field(None, description="size of each of the two root slots on the boot disk")
    extra: ExtraFile | None = None


class CvmFile(_Section):
    """Sizes of the Controller VM, and what is added to its root."""

    memory: Size | None = Field(None, description="memory of the Controller VM")
    vcpus: Annotated[StrictInt, Field(ge=1, le=256)] | None = Field(
        None, description="virtual CPUs; left out, as many as the NUMA node of its disks has cores, 8 to 12")
    disk: Size | None = Field(None, description="size of its virtual system disk")
    root_slot: Size | None = Field(None, description="size of each of the two root slots on that disk")
    extra: ExtraFile | None = None


class MachineFile(_Section):
    """What the machines have to be; `any` where it doesn't matter."""

    firmware: Literal["any", "uefi", "secureboot"] | None = Field(None, description="how a machine has to be booted")
    tpm: Literal["any", "2.0"] | None = Field(None, description="the TPM that a machine has to have")


class ProfileFile(_Section):
    """One profile file. A key that is left out comes from the profile that this one extends."""

    # what keys were called before
    RENAMED: ClassVar = {"controller": "cvm"}

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
    cvm: CvmFile | None = None
    machine: MachineFile | None = None
