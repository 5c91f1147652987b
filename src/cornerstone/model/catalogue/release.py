"""The catalogue in memory: trains, releases, lines, builds, pairings and what is known of each.

Standard library only: rules read it, and rules also run on the machine. catalogue.py fills it from versions/.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property

from cornerstone.model.catalogue.version import AhvVersion, AosVersion


@dataclass(frozen=True)
class Provenance:
    """Where a row comes from. grade: A or B; evidence: nutanix, vendor_secondhand or reported (docs/catalogue.md)."""

    grade: str
    evidence: str
    sources: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        return f"{self.evidence}, grade {self.grade}: {'; '.join(self.sources)}"


@dataclass(frozen=True)
class AosTrain:
    """An AOS train. A date that no source gives is None; track is LTS, eSTS or NCI, None where only inferred."""

    name: str
    ga: datetime.date
    track: str | None
    maintenance_end: datetime.date | None
    support_end: datetime.date | None
    latest: AosVersion | None
    codename: str | None
    provenance: Provenance


@dataclass(frozen=True)
class AosRelease:
    """One AOS release; date is its general availability, None where no source gives it."""

    version: AosVersion
    date: datetime.date | None
    provenance: Provenance


@dataclass(frozen=True)
class AhvLine:
    """A line of AHV builds. el: major of the Enterprise Linux that it is based on; dist_tag: the tag in file names."""

    name: str
    scheme: str
    dist_tag: str | None
    el: int | None
    provenance: Provenance


@dataclass(frozen=True)
class AhvBuild:
    """One AHV build that a source has seen. alias: marketing version; kernel, iso: as seen, or None."""

    version: AhvVersion
    alias: str | None
    kernel: str | None
    iso: str | None
    provenance: Provenance


@dataclass(frozen=True)
class Pairing:
    """A source names this AHV with this AOS. weak: not enough for a pass; ahv_source: bundled, separate_iso, None."""

    aos: AosVersion
    ahv: AhvVersion
    weak: bool
    ahv_source: str | None
    provenance: Provenance


@dataclass(frozen=True)
class Minimum:
    """From aos_from on (within its train only, or in later ones too) a source asks for ahv or later, for scope."""

    aos_from: AosVersion
    within_train: bool
    ahv: AhvVersion
    scope: str
    provenance: Provenance

    def covers(self, aos: AosVersion) -> bool:
        """Whether the minimum is said of this AOS release."""
        return aos >= self.aos_from and (not self.within_train or aos.train == self.aos_from.train)


@dataclass(frozen=True)
class Delivery:
    """How AHV reaches Foundation (bundled or separate_iso) from aos_from on, up to but not with aos_before."""

    aos_from: AosVersion
    aos_before: AosVersion | None
    ahv_source: str
    provenance: Provenance

    def covers(self, aos: AosVersion) -> bool:
        """Whether the statement is about this AOS release."""
        return aos >= self.aos_from and (self.aos_before is None or aos < self.aos_before)


@dataclass(frozen=True)
class FoundationRelease:
    """A Foundation release and the AOS releases that a source names with it; never a minimum."""

    name: str
    seen: str | None
    tested_with: tuple[AosVersion, ...]
    provenance: Provenance


@dataclass(frozen=True)
class PrismCentral:
    """The Prism Central release that a source names with an AOS train."""

    train: str
    name: str
    provenance: Provenance


@dataclass(frozen=True)
class UpgradeHop:
    """One direct upgrade that a source states."""

    from_aos: AosVersion
    to_aos: AosVersion
    to_ahv: AhvVersion | None
    provenance: Provenance


@dataclass(frozen=True)
class Catalogue:
    """All that versions/ says, in the order of the files."""

    trains: tuple[AosTrain, ...]
    releases: tuple[AosRelease, ...]
    lines: tuple[AhvLine, ...]
    builds: tuple[AhvBuild, ...]
    pairings: tuple[Pairing, ...]
    minimums: tuple[Minimum, ...]
    deliveries: tuple[Delivery, ...]
    prism_central: tuple[PrismCentral, ...]
    foundations: tuple[FoundationRelease, ...]
    upgrade_order: tuple[str, ...]
    hops: tuple[UpgradeHop, ...]

    def beside(self, aos: AosVersion) -> tuple[AosVersion, ...]:
        """Return the releases that may be in one cluster with aos: those to or from which there is a direct upgrade."""
        return tuple(sorted({hop.from_aos if hop.to_aos == aos else hop.to_aos for hop in self.hops
                             if aos in (hop.from_aos, hop.to_aos)}))

    def train(self, aos: AosVersion) -> AosTrain | None:
        """The train of a release, also when the release itself isn't known; None when the train isn't."""
        return self._trains.get(aos.train)

    def release(self, aos: AosVersion) -> AosRelease | None:
        """The release, or None."""
        return self._releases.get(aos)

    def build(self, ahv: AhvVersion) -> AhvBuild | None:
        """The build, or None."""
        return self._builds.get(ahv)

    def line(self, ahv: AhvVersion) -> AhvLine | None:
        """The line of a build, also when the build itself isn't known; None when the line isn't."""
        return self._lines.get(ahv.line)

    def pairing(self, aos: AosVersion, ahv: AhvVersion) -> Pairing | None:
        """The row for exactly this pair, or None."""
        return self._pairings.get((aos, ahv))

    def delivery(self, aos: AosVersion) -> Delivery | None:
        """The statement on how AHV reaches Foundation with this release, or None."""
        return next((delivery for delivery in self.deliveries if delivery.covers(aos)), None)

    @cached_property
    def _trains(self) -> dict[str, AosTrain]:
        return {train.name: train for train in self.trains}

    @cached_property
    def _releases(self) -> dict[AosVersion, AosRelease]:
        return {release.version: release for release in self.releases}

    @cached_property
    def _builds(self) -> dict[AhvVersion, AhvBuild]:
        return {build.version: build for build in self.builds}

    @cached_property
    def _lines(self) -> dict[str, AhvLine]:
        return {line.name: line for line in self.lines}

    @cached_property
    def _pairings(self) -> dict[tuple[AosVersion, AhvVersion], Pairing]:
        return {(pairing.aos, pairing.ahv): pairing for pairing in self.pairings}
