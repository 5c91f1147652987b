"""Do this AOS and this AHV go together? Compatible only when a source says so; unknown is an answer of its own.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cornerstone.model.catalogue.release import Catalogue, Minimum, Pairing
from cornerstone.model.catalogue.version import AhvVersion, AosVersion


class Answer(StrEnum):
    """What is known of a pair."""

    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class PairAnswer:
    """The answer, why (one sentence), and the catalogue's rows that it rests on (none for most unknowns)."""

    answer: Answer
    reason: str
    evidence: tuple[Pairing, ...] = ()


def answer_pair(catalogue: Catalogue, aos: AosVersion, ahv: AhvVersion) -> PairAnswer:
    """Answer for any pair, known releases or not.

    Exactly this pair in a source: compatible. AHV from the line of another AOS train: incompatible. Else unknown; a
    neighbour in the same branch never makes a pass.
    """
    exact = catalogue.pairing(aos, ahv)
    if exact and not exact.weak:
        return PairAnswer(Answer.COMPATIBLE, f"AOS {aos} with AHV {ahv}: {exact.provenance}", (exact,))
    owners = foreign_owners(catalogue, aos, ahv)
    if owners:
        own = ", ".join(sorted({pairing.ahv.branch for pairing in _of_train(catalogue, aos.train)}))
        trains = ", ".join(dict.fromkeys(pairing.aos.train for pairing in owners))
        return PairAnswer(Answer.INCOMPATIBLE,
                          f"{_owned(ahv, owners)} belongs to AOS {trains}; AOS {aos} is of the {aos.train} line, "
                          f"with AHV {own}", owners)
    return PairAnswer(Answer.UNKNOWN, _why_unknown(catalogue, aos, ahv, exact), (exact,) if exact else ())


def _owned(ahv: AhvVersion, owners: tuple[Pairing, ...]) -> str:
    """What belongs to the owners' trains: the build itself where each has it, else its branch or its line."""
    trains = {pairing.aos.train for pairing in owners}
    if {pairing.aos.train for pairing in owners if pairing.ahv == ahv} == trains:
        return f"AHV {ahv}"
    by_branch = any(pairing.ahv.branch == ahv.branch for pairing in owners)
    return f"AHV {ahv} is of the {f'branch {ahv.branch}' if by_branch else f'line {ahv.line}'}, and that"


def foreign_owners(catalogue: Catalogue, aos: AosVersion, ahv: AhvVersion) -> tuple[Pairing, ...]:
    """The pairings that show the AHV build to be of another AOS train's line; () when it isn't, or can't be told.

    By branch where the branch has pairings, else by line.
    """
    strong = [pairing for pairing in catalogue.pairings if not pairing.weak]
    neighbours = ([pairing for pairing in strong if pairing.ahv.branch == ahv.branch]
                  or [pairing for pairing in strong if pairing.ahv.line == ahv.line])
    if not _of_train(catalogue, aos.train) or any(pairing.aos.train == aos.train for pairing in neighbours):
        return ()
    return tuple(neighbours)


def missed_minimums(catalogue: Catalogue, aos: AosVersion, ahv: AhvVersion) -> tuple[Minimum, ...]:
    """The stated minimums that cover this release and that the build is below, as far as the two compare."""
    return tuple(minimum for minimum in catalogue.minimums
                 if minimum.covers(aos) and ahv.comparable(minimum.ahv) and ahv < minimum.ahv)


def _of_train(catalogue: Catalogue, train: str) -> list[Pairing]:
    return [pairing for pairing in catalogue.pairings if pairing.aos.train == train and not pairing.weak]


def _why_unknown(catalogue: Catalogue, aos: AosVersion, ahv: AhvVersion, weak: Pairing | None) -> str:
    if weak:
        return f"the only source for AOS {aos} with AHV {ahv} is weak: {weak.provenance}"
    if catalogue.train(aos) is None:
        return f"the catalogue has no AOS train {aos.train}"
    if catalogue.release(aos) is None:
        return f"the catalogue has no AOS {aos}"
    if catalogue.build(ahv) is None:
        return f"no source in the catalogue has seen AHV {ahv}"
    known = [str(pairing.ahv) for pairing in catalogue.pairings if pairing.aos == aos and not pairing.weak]
    return (f"no source pairs AOS {aos} with AHV {ahv}"
            + (f"; sources pair it with AHV {', '.join(known)}" if known else ""))
