"""Loads the catalogue: versions/*.yaml into the dataclasses of model/catalogue/release.py, checked row by row.

model/catalogue/file.py checks each file's shape, this module that the rows agree with one another. Every error says
file:line and the path of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.printable import quoted
from cornerstone.lib.yaml_document import Document, did_you_mean, load, validate
from cornerstone.model.catalogue.file import (
    AhvFile,
    AosFile,
    File,
    FileNameRow,
    FoundationFile,
    PairingsFile,
    Row,
    UpgradesFile,
)
from cornerstone.model.catalogue.release import (
    AhvBuild,
    AhvLine,
    AosRelease,
    AosTrain,
    Catalogue,
    Delivery,
    FoundationRelease,
    Minimum,
    Pairing,
    PrismCentral,
    Provenance,
    UpgradeHop,
)
from cornerstone.model.catalogue.version import AhvVersion, AosVersion

Shape = TypeVar("Shape", bound=File)


@dataclass
class _Checked:
    """A file's document and sources; turns a row's sources into provenance and a wrong row into an error."""

    document: Document
    sources: dict[str, str]
    used: set[str] = field(default_factory=set)

    def provenance(self, row: Row, *where: str | int) -> Provenance:
        """Resolve a row's sources to their titles. Grade A is what the vendor says itself, and nothing else is."""
        for source in row.source:
            if source not in self.sources:
                raise self.document.error((*where, "source"), f"unknown source {quoted(source)}",
                                          did_you_mean(source, self.sources, "sources"))
        if (row.grade == "A") != (row.evidence == "nutanix"):
            raise self.document.error((*where, "evidence"), f"{quoted(row.evidence)} doesn't go with grade {row.grade}",
                                      "grade A goes with nutanix; grade B with vendor_secondhand or reported")
        self.used.update(row.source)
        return Provenance(row.grade, row.evidence, tuple(self.sources[source] for source in row.source), row.note)

    def known(self, name: str | None, among: Iterable[str], *where: str | int) -> None:
        """Refuse a reference to a row that isn't there; None refers to nothing."""
        names = list(among)
        if name is not None and name not in names:
            raise self.document.error(where, f"{quoted(name)} isn't in the catalogue",
                                      did_you_mean_release(name, names))

    def parse(self, parse: Callable[[str], AosVersion | AhvVersion], text: str,
              *where: str | int) -> AosVersion | AhvVersion:
        """Read a release or a file name. Raises CornerstoneError with its place when it is none."""
        try:
            return parse(text)
        except CornerstoneError as error:
            raise self.document.error(where, error.message, error.hint) from None

    def unique(self, names: Sequence[str], section: str) -> None:
        """Refuse two rows for one thing."""
        for index, name in enumerate(names):
            if name in names[:index]:
                raise self.document.error((section, index), f"a second row for {name}", "merge the two rows")

    def all_sources_used(self) -> None:
        """Refuse a source that no row uses: a row was lost, or its name was mistyped."""
        for source in self.sources:
            if source not in self.used:
                raise self.document.error(("sources", source), "no row uses this source", "delete it, or use it")


def did_you_mean_release(name: str, known: Sequence[str]) -> str:
    """The nearest known releases: of the same train or line first, else by spelling, else where to add one."""
    family = name.rpartition(".")[0]
    near = [release for release in known if release.startswith(f"{family}.")] if family.count(".") else []
    if near:
        return f"known: {', '.join(near)}"
    hint = did_you_mean(name, known, "releases")
    return hint if hint.startswith("did") else "add it to versions/ first, with its grade and source"


def load_catalogue(root: Path) -> Catalogue:
    """Read versions/ below root (the repository's root); CornerstoneError for the first wrong row."""
    aos, aos_file = _open(root, "aos", AosFile)
    ahv, ahv_file = _open(root, "ahv", AhvFile)
    pairings, pairings_file = _open(root, "pairings", PairingsFile)
    foundation, foundation_file = _open(root, "foundation", FoundationFile)
    upgrades, upgrades_file = _open(root, "upgrades", UpgradesFile)
    _check_aos(aos, aos_file)
    _check_ahv(ahv, ahv_file)
    releases = [row.release for row in aos_file.releases]
    builds = [row.build for row in ahv_file.builds]
    _check_pairings(pairings, pairings_file, releases, builds, [row.train for row in aos_file.trains])
    for index, tested in enumerate(foundation_file.releases):
        for position, release in enumerate(tested.tested_with):
            foundation.known(release, releases, "releases", index, "tested_with", position)
    foundation.unique([row.foundation for row in foundation_file.releases], "releases")
    upgrades.provenance(upgrades_file.order, "order")
    for index, hop in enumerate(upgrades_file.hops):
        upgrades.known(hop.from_aos, releases, "hops", index, "from")
        upgrades.known(hop.to_aos, releases, "hops", index, "to")
        upgrades.known(hop.to_ahv, builds, "hops", index, "to_ahv")
    catalogue = Catalogue(
        trains=tuple(
            AosTrain(row.train, row.ga, row.track, row.maintenance_end, row.support_end, _aos(row.latest), row.codename,
                     aos.provenance(row, "trains", index)) for index, row in enumerate(aos_file.trains)),
        releases=tuple(
            AosRelease(AosVersion.parse(row.release), row.date, aos.provenance(row, "releases", index))
            for index, row in enumerate(aos_file.releases)),
        lines=tuple(
            AhvLine(row.line, row.scheme, row.dist_tag, row.el, ahv.provenance(row, "lines", index))
            for index, row in enumerate(ahv_file.lines)),
        builds=tuple(
            AhvBuild(AhvVersion.parse(row.build), row.alias, row.kernel, row.iso,
                     ahv.provenance(row, "builds", index)) for index, row in enumerate(ahv_file.builds)),
        pairings=tuple(
            Pairing(AosVersion.parse(row.aos), AhvVersion.parse(row.ahv), row.weak, row.ahv_source,
                    pairings.provenance(row, "pairings", index)) for index, row in enumerate(pairings_file.pairings)),
        minimums=tuple(
            Minimum(AosVersion.parse(row.aos_from), row.within_train, AhvVersion.parse(row.ahv), row.scope,
                    pairings.provenance(row, "minimums", index)) for index, row in enumerate(pairings_file.minimums)),
        deliveries=tuple(
            Delivery(AosVersion.parse(row.aos_from), _aos(row.aos_before), row.ahv_source,
                     pairings.provenance(row, "delivery", index)) for index, row in enumerate(pairings_file.delivery)),
        prism_central=tuple(
            PrismCentral(row.train, row.prism_central, pairings.provenance(row, "prism_central", index))
            for index, row in enumerate(pairings_file.prism_central)),
        foundations=tuple(
            FoundationRelease(row.foundation, row.seen, tuple(map(AosVersion.parse, row.tested_with)),
                              foundation.provenance(row, "releases", index))
            for index, row in enumerate(foundation_file.releases)),
        upgrade_order=upgrades_file.order.steps,
        hops=tuple(
            UpgradeHop(AosVersion.parse(row.from_aos), AosVersion.parse(row.to_aos),
                       AhvVersion.parse(row.to_ahv) if row.to_ahv else None, upgrades.provenance(row, "hops", index))
            for index, row in enumerate(upgrades_file.hops)),
    )
    for checked in (aos, ahv, pairings, foundation, upgrades):
        checked.all_sources_used()
    return catalogue


def _open(root: Path, name: str, model: type[Shape]) -> tuple[_Checked, Shape]:
    document = load(root / "versions" / f"{name}.yaml", f"versions/{name}.yaml")
    shape = validate(model, document)
    return _Checked(document, shape.sources), shape


def _aos(text: str | None) -> AosVersion | None:
    return AosVersion.parse(text) if text else None


def _check_aos(checked: _Checked, file: AosFile) -> None:
    trains, dates = [row.train for row in file.trains], {row.release: row.date for row in file.releases}
    checked.unique(trains, "trains")
    checked.unique([row.release for row in file.releases], "releases")
    for index, train in enumerate(file.trains):
        checked.known(train.latest, dates, "trains", index, "latest")
        ends = [date for date in (train.ga, train.maintenance_end, train.support_end) if date]
        if ends != sorted(ends):
            raise checked.document.error(("trains", index), f"the dates of {train.train} aren't in order",
                                         "general availability, then end of maintenance, then end of support")
    for index, release in enumerate(file.releases):
        checked.known(AosVersion.parse(release.release).train, trains, "releases", index, "release")
    for index, cvm_os in enumerate(file.cvm_os):
        checked.provenance(cvm_os, "cvm_os", index)
    _check_file_names(checked, file.file_names, AosVersion.parse)


def _check_ahv(checked: _Checked, file: AhvFile) -> None:
    lines = [row.line for row in file.lines]
    checked.unique(lines, "lines")
    for index, line in enumerate(file.lines):
        if (line.scheme == "dotted") != ("." in line.line):
            raise checked.document.error(("lines", index, "scheme"), f"{line.line} isn't of scheme {line.scheme}",
                                         "a line of date-builds is a date such as 20230302, a dotted one is like 10.3")
    checked.unique([row.build for row in file.builds], "builds")
    for index, row in enumerate(file.builds):
        build = AhvVersion.parse(row.build)
        checked.known(build.line, lines, "builds", index, "build")
        if row.iso and checked.parse(AhvVersion.parse, row.iso, "builds", index, "iso") != build:
            raise checked.document.error(("builds", index, "iso"), f"{quoted(row.iso)} isn't the ISO of {build}",
                                         "the name of the ISO holds the build")
    _check_file_names(checked, file.file_names, AhvVersion.parse)


def _check_pairings(checked: _Checked, file: PairingsFile, releases: list[str], builds: list[str],
                    trains: list[str]) -> None:
    checked.unique([f"AOS {row.aos} with AHV {row.ahv}" for row in file.pairings], "pairings")
    for index, pairing in enumerate(file.pairings):
        checked.known(pairing.aos, releases, "pairings", index, "aos")
        checked.known(pairing.ahv, builds, "pairings", index, "ahv")
    for index, minimum in enumerate(file.minimums):
        checked.known(minimum.aos_from, releases, "minimums", index, "aos_from")
        checked.known(minimum.ahv, builds, "minimums", index, "ahv")
    for index, prism_central in enumerate(file.prism_central):
        checked.known(prism_central.train, trains, "prism_central", index, "train")


def _check_file_names(checked: _Checked, rows: Sequence[FileNameRow],
                      parse: Callable[[str], AosVersion | AhvVersion]) -> None:
    """The examples are real names: each must read as the release beside it."""
    for index, row in enumerate(rows):
        checked.provenance(row, "file_names", index)
        for position, example in enumerate(row.examples):
            where = ("file_names", index, "examples", position)
            release = checked.parse(parse, example.name, *where, "name")
            if str(release) != example.release:
                raise checked.document.error(where, f"{quoted(example.name)} reads as {release}", "mend the release")
