"""The rules on releases (scope pair) and on whole profiles (scope profile). Standard library only."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.catalogue.pair import Answer, answer_pair, foreign_owners, missed_minimums
from cornerstone.model.catalogue.release import Catalogue
from cornerstone.model.catalogue.version import AhvVersion, AosVersion
from cornerstone.model.rules.registry import REGISTRY, Level, Result, Verdict

if TYPE_CHECKING:  # the profile loader needs pydantic, which no image has
    from cornerstone.model.profile.profile import CvmSizes, HypervisorSizes, Profile

# The Debian suites that the elements build the reference payload from.
SUITES = ("bookworm", "trixie")
MIB = 1024 ** 2
MIN_CVM_MEMORY = 2 * 1024 ** 3
MIN_CVM_VCPUS = 2
# What a site may ask for a node's Controller VM, too.
MAX_CVM_MEMORY = 4 * 1024 ** 4
# Our choice: state lies on ext4, and no boot disk holds more beside its own partitions.
MAX_CVM_DISK = 16 * 1024 ** 4
# Our choice: a root has some 350 to 400 MiB as a squashfs, and an update may be larger.
MIN_ROOT_SLOT = 512 * MIB
MAX_ROOT_SLOT = 64 * 1024 ** 3
# Boot partitions and the state partition, beside the two root slots.
MIN_CVM_STATE = 1024 ** 3


@dataclass(frozen=True)
class Subject:
    """What the rules of this file look at; suite and sizes only for the scope profile."""

    catalogue: Catalogue
    today: datetime.date
    aos: AosVersion
    ahv: AhvVersion
    suite: str = ""
    cvm: CvmSizes | None = None
    hypervisor: HypervisorSizes | None = None


def check_pair(aos: AosVersion, ahv: AhvVersion, catalogue: Catalogue, *, today: datetime.date) -> tuple[Verdict, ...]:
    """Run the pair rules on any two releases."""
    return REGISTRY.check(Subject(catalogue, today, aos, ahv), "pair")


def check_profile(profile: Profile, catalogue: Catalogue, *, today: datetime.date) -> tuple[Verdict, ...]:
    """Run all release and profile rules on a profile."""
    subject = Subject(catalogue, today, AosVersion.parse(profile.aos), AhvVersion.parse(profile.ahv),
                      profile.reference.suite, profile.cvm, profile.hypervisor)
    return REGISTRY.check(subject, "pair", "profile")


def require_profile(profile: Profile, catalogue: Catalogue, *, today: datetime.date) -> tuple[Verdict, ...]:
    """check_profile, but CornerstoneError for the first error; for the build. Returns the verdicts otherwise."""
    verdicts = check_profile(profile, catalogue, today=today)
    for verdict in verdicts:
        if verdict.severity is Level.ERROR:
            raise CornerstoneError(f"profile {profile.name}: {verdict.rule.id}: {verdict.message}", verdict.rule.hint,
                                   Code.INPUT)
    return verdicts


@REGISTRY.rule("aos.release-known", Level.ERROR, "pair", "choose a release from versions/aos.yaml, or add it there")
def aos_release_known(subject: Subject) -> Result:
    """The catalogue has the AOS release."""
    release = subject.catalogue.release(subject.aos)
    if release is None:
        return Result.violated(f"the catalogue has no AOS {subject.aos}")
    return Result.ok(f"AOS {subject.aos} of {release.date or 'unknown date'}")


@REGISTRY.rule("ahv.build-known", Level.ERROR, "pair", "choose a build from versions/ahv.yaml, or add it there")
def ahv_build_known(subject: Subject) -> Result:
    """A source in the catalogue has seen the AHV build."""
    build = subject.catalogue.build(subject.ahv)
    if build is None:
        return Result.violated(f"no source in the catalogue has seen AHV {subject.ahv}")
    return Result.ok(f"AHV {subject.ahv}: {build.provenance}")


@REGISTRY.rule("pair.same-line", Level.ERROR, "pair", "pair the AOS release with AHV from its own line")
def pair_same_line(subject: Subject) -> Result:
    """The AHV build is of the line that belongs to the AOS train."""
    answer = answer_pair(subject.catalogue, subject.aos, subject.ahv)
    if foreign_owners(subject.catalogue, subject.aos, subject.ahv):
        return Result.violated(answer.reason)
    known = any(pairing.aos.train == subject.aos.train and pairing.ahv.branch == subject.ahv.branch
                for pairing in subject.catalogue.pairings if not pairing.weak)
    if known:
        return Result.ok(f"AOS {subject.aos.train} goes with AHV {subject.ahv.branch}")
    return Result.unknown(f"no pairing tells whether AHV {subject.ahv.branch} belongs to AOS {subject.aos.train}")


@REGISTRY.rule("pair.known", Level.ERROR, "pair", "choose a pair from versions/pairings.yaml, or add it there")
def pair_known(subject: Subject) -> Result:
    """A source names exactly this AHV build with this AOS release."""
    answer = answer_pair(subject.catalogue, subject.aos, subject.ahv)
    if answer.answer is Answer.COMPATIBLE:
        return Result.ok(answer.reason)
    if answer.answer is Answer.INCOMPATIBLE:
        return Result.unknown(f"no source pairs AOS {subject.aos} with AHV {subject.ahv}")
    return Result.unknown(answer.reason)


@REGISTRY.rule("pair.minimum", Level.WARNING, "pair", "use the stated build or a later one of its branch")
def pair_minimum(subject: Subject) -> Result:
    """The AHV build isn't below a minimum that a source states for the AOS release."""
    missed = missed_minimums(subject.catalogue, subject.aos, subject.ahv)
    if missed:
        return Result.violated("; ".join(f"for {minimum.scope}, AOS {minimum.aos_from} and later asks for AHV "
                                         f"{minimum.ahv} or later" for minimum in missed))
    other = [minimum for minimum in subject.catalogue.minimums
             if minimum.covers(subject.aos) and not subject.ahv.comparable(minimum.ahv)]
    if other:
        return Result.unknown(f"AHV {subject.ahv} and the stated minimum {other[0].ahv} are of different branches")
    return Result.ok(f"no stated minimum is above AHV {subject.ahv}")


@REGISTRY.rule("aos.end-of-support", Level.WARNING, "pair", "plan the step to a train that is still supported")
def aos_end_of_support(subject: Subject) -> Result:
    """The AOS train is still supported."""
    train = subject.catalogue.train(subject.aos)
    if train is None or train.support_end is None:
        return Result.unknown(f"no source gives an end of support for AOS {subject.aos.train}")
    if subject.today > train.support_end:
        return Result.violated(f"support for AOS {train.name} ended on {train.support_end}")
    return Result.ok(f"AOS {train.name} is supported until {train.support_end}")


@REGISTRY.rule("aos.end-of-maintenance", Level.INFO, "pair", "expect security fixes at most; choose a newer train")
def aos_end_of_maintenance(subject: Subject) -> Result:
    """The AOS train still gets maintenance releases."""
    train = subject.catalogue.train(subject.aos)
    if train is None or train.maintenance_end is None:
        return Result.unknown(f"no source gives an end of maintenance for AOS {subject.aos.train}")
    if subject.today > train.maintenance_end:
        return Result.violated(f"maintenance of AOS {train.name} ended on {train.maintenance_end}")
    return Result.ok(f"AOS {train.name} is maintained until {train.maintenance_end}")


@REGISTRY.rule("ahv.delivery-agreed", Level.INFO, "pair", "look for install/ahv/kvm_host_bundle* in the AOS package")
def ahv_delivery_agreed(subject: Subject) -> Result:
    """The sources agree on whether AHV comes inside the AOS package or as an ISO of its own."""
    pairing = subject.catalogue.pairing(subject.aos, subject.ahv)
    delivery = subject.catalogue.delivery(subject.aos)
    said = {source for source in (pairing.ahv_source if pairing else None,
                                  delivery.ahv_source if delivery else None) if source}
    if len(said) == 1:
        return Result.ok(f"AHV is delivered as {said.pop()}")
    if said:
        return Result.unknown(f"one source says {', another '.join(sorted(said))}")
    return Result.unknown(f"no source says how AHV is delivered with AOS {subject.aos}")


@REGISTRY.rule("foundation.tested", Level.INFO, "pair", "use a Foundation release of about the same date, and test it")
def foundation_tested(subject: Subject) -> Result:
    """A source names a Foundation release with the AOS release; this is no minimum."""
    names = [release.name for release in subject.catalogue.foundations if subject.aos in release.tested_with]
    if names:
        return Result.ok(f"seen with Foundation {', '.join(names)}")
    return Result.unknown(f"no source names a Foundation release with AOS {subject.aos}")


@REGISTRY.rule("upgrade.hop-known", Level.INFO, "pair", "ask the vendor's upgrade path tool, then add the hop")
def upgrade_hop_known(subject: Subject) -> Result:
    """A source states a direct upgrade to or from the AOS release."""
    hops = [f"{hop.from_aos} to {hop.to_aos}" for hop in subject.catalogue.hops
            if subject.aos in (hop.from_aos, hop.to_aos)]
    if hops:
        return Result.ok(f"direct upgrade: {', '.join(hops)}")
    return Result.unknown(f"no source states a direct upgrade to or from AOS {subject.aos}")


@REGISTRY.rule("suite.supported", Level.ERROR, "profile", "set reference.suite to bookworm or trixie")
def suite_supported(subject: Subject) -> Result:
    """The elements can build the reference payload from the Debian suite."""
    if subject.suite not in SUITES:
        return Result.violated(f"the suite {subject.suite!r} isn't one of {', '.join(SUITES)}")
    return Result.ok(f"the reference payload is built from {subject.suite}")


@REGISTRY.rule("cvm.sizing", Level.ERROR, "profile", "mend cvm.memory, .vcpus or .disk in the profile")
def cvm_sizing(subject: Subject) -> Result:
    """The Controller VM has 2 GiB to 4 TiB of memory, 2 CPUs, and a disk for two root slots and 1 GiB of state."""
    sizes = subject.cvm
    if sizes is None:
        return Result.unknown("no sizes are given")
    disk = 2 * sizes.root_slot + MIN_CVM_STATE
    if sizes.vcpus is not None and sizes.vcpus < MIN_CVM_VCPUS:
        return Result.violated(f"cvm.vcpus is {sizes.vcpus}, below {MIN_CVM_VCPUS}")
    if problem := (_outside("cvm.memory", sizes.memory, MIN_CVM_MEMORY, MAX_CVM_MEMORY)
                   or _outside("cvm.root_slot", sizes.root_slot, MIN_ROOT_SLOT, MAX_ROOT_SLOT)
                   or _outside("cvm.disk", sizes.disk, disk, MAX_CVM_DISK, ": two slots and state")):
        return Result.violated(problem)
    vcpus = f"{sizes.vcpus} CPUs" if sizes.vcpus else "CPUs as the machine has them"
    return Result.ok(f"{sizes.memory // MIB} MiB of memory, {vcpus}, disk of {sizes.disk // MIB} MiB")


@REGISTRY.rule("hypervisor.root-slot", Level.ERROR, "profile", "mend hypervisor.root_slot in the profile")
def hypervisor_root_slot(subject: Subject) -> Result:
    """Each root slot on the boot disk has 512 MiB to 64 GiB."""
    if subject.hypervisor is None:
        return Result.unknown("no sizes are given")
    slot = subject.hypervisor.root_slot
    if problem := _outside("hypervisor.root_slot", slot, MIN_ROOT_SLOT, MAX_ROOT_SLOT):
        return Result.violated(problem)
    return Result.ok(f"two root slots of {slot // MIB} MiB")


def _outside(name: str, size: int, lowest: int, highest: int, why: str = "") -> str:
    """What is wrong with a size in bytes, "" when it is within its bounds."""
    if size < lowest:
        return f"{name} is {size // MIB} MiB, below {lowest // MIB}{why}"
    return f"{name} is {size // MIB} MiB, above {highest // MIB}" if size > highest else ""
