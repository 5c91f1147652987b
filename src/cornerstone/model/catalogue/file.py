"""The shape of the files in versions/: one pydantic model per file and kind of row; catalogue.py reads them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from pydantic_core import PydanticCustomError

from cornerstone.lib.error import CornerstoneError
from cornerstone.model.catalogue.version import AhvVersion, AosVersion


def _date(value: Any) -> datetime.date:
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", str(value)):
            return datetime.date.fromisoformat(str(value))
    except ValueError:
        pass
    raise PydanticCustomError("date", "'{value}' isn't a date",
                              {"value": str(value), "hint": "write it as year-month-day, such as 2024-05-15"})


def _canonical(parse: Callable[[str], AosVersion | AhvVersion]) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            version = parse(value)
        except CornerstoneError as error:
            raise PydanticCustomError("version", "{problem}", {"problem": error.message, "hint": error.hint}) from None
        if str(version) != value:
            raise PydanticCustomError("version", "'{value}' isn't the shortest spelling",
                                      {"value": value, "hint": f'write it as "{version}"'})
        return value
    return check


Date = Annotated[datetime.date, BeforeValidator(_date)]
Aos = Annotated[str, AfterValidator(_canonical(AosVersion.parse))]
Ahv = Annotated[str, AfterValidator(_canonical(AhvVersion.parse))]
AhvSource = Literal["bundled", "separate_iso"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Row(Strict):
    grade: Literal["A", "B"]
    evidence: Literal["nutanix", "vendor_secondhand", "reported"]
    source: Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    note: str = ""


class TrainRow(Row):
    train: Aos
    ga: Date
    track: Literal["LTS", "eSTS", "NCI"] | None = None
    maintenance_end: Date | None = None
    support_end: Date | None = None
    latest: Aos | None = None
    codename: str | None = None


class ReleaseRow(Row):
    release: Aos
    date: Date | None = None


class CvmOsRow(Row):
    tag: str
    since: Aos | None = Field(None, alias="from")
    through: Aos | None = None


class Example(Strict):
    name: str
    release: str


class FileNameRow(Row):
    form: str
    examples: tuple[Example, ...]


class File(Strict):
    sources: dict[str, str]


class AosFile(File):
    trains: tuple[TrainRow, ...]
    releases: tuple[ReleaseRow, ...]
    cvm_os: tuple[CvmOsRow, ...] = ()
    file_names: tuple[FileNameRow, ...] = ()


class LineRow(Row):
    line: str
    scheme: Literal["date-build", "dotted"]
    dist_tag: str | None = None
    el: StrictInt | None = None


class BuildRow(Row):
    build: Ahv
    alias: str | None = None
    kernel: str | None = None
    iso: str | None = None


class AhvFile(File):
    lines: tuple[LineRow, ...]
    builds: tuple[BuildRow, ...]
    file_names: tuple[FileNameRow, ...] = ()


class PairingRow(Row):
    aos: Aos
    ahv: Ahv
    weak: StrictBool = False
    ahv_source: AhvSource | None = None


class MinimumRow(Row):
    aos_from: Aos
    within_train: StrictBool = False
    ahv: Ahv
    scope: str


class DeliveryRow(Row):
    aos_from: Aos
    aos_before: Aos | None = None
    ahv_source: AhvSource


class PrismCentralRow(Row):
    train: Aos
    prism_central: str


class PairingsFile(File):
    pairings: tuple[PairingRow, ...]
    minimums: tuple[MinimumRow, ...] = ()
    delivery: tuple[DeliveryRow, ...] = ()
    prism_central: tuple[PrismCentralRow, ...] = ()


class FoundationRow(Row):
    foundation: str
    seen: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$")] | None = None
    platforms: str | None = None
    lcm: str | None = None
    ncc: str | None = None
    tested_with: tuple[Aos, ...]


class FoundationFile(File):
    releases: tuple[FoundationRow, ...]


class HopRow(Row):
    from_aos: Aos = Field(alias="from")
    to_aos: Aos = Field(alias="to")
    to_ahv: Ahv | None = None


class OrderRow(Row):
    steps: tuple[Literal["prism_central", "aos", "ahv"], ...]


class UpgradesFile(File):
    order: OrderRow
    hops: tuple[HopRow, ...]
