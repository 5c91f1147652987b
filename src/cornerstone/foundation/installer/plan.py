"""The plan: which disk is written, what the Controller VM gets, and every reason not to. Pure: nothing is touched.

No wrong disk, ever: exactly one disk must match; never the medium; a disk that isn't empty needs a token bound to the
disk and to what is on it; a disk without a serial, or with another's, is refused; an installed node isn't installed
again unless that is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cornerstone.foundation.installer.identify import identify
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.facts import Disk, Facts, PciDevice
from cornerstone.model.contracts.manifest import HYPERVISOR, Manifest
from cornerstone.model.contracts.node import Cluster, Cvm, DataDisk, Hypervisor, NodeConfig, Uplink
from cornerstone.model.contracts.requirements import Requirements
from cornerstone.model.disk.slot_disk import MIB, Layout, layout
from cornerstone.model.rules.fitness import ambiguity, obstacle, unfit_for_boot, unfit_for_data
from cornerstone.model.rules.hardware import check_machine
from cornerstone.model.rules.registry import Level, Outcome
from cornerstone.model.site.site import DiskChoice, Node, Site
from cornerstone.model.sizing import FEWEST_VCPUS, cvm_vcpus

# What scsi instead of passthrough does without.
NEED_PASSTHROUGH = ("hw.iommu", "hw.passthrough")
# Rules on the disks that were chosen, and so asked when they are.
OF_CHOICE = ("hw.osd-memory", "hw.osd-cache")
# Transports of disks that take no SCSI commands.
NOT_SCSI = ("nvme", "virtio", "mmc")


@dataclass(frozen=True)
class Refusal:
    """Why the machine isn't imaged: a rule's id or the plan's own, what is wrong, how to mend it."""

    id: str
    message: str
    hint: str


@dataclass(frozen=True)
class Passed:
    """A storage controller that the Controller VM gets whole, and the disks that hang off it."""

    device: PciDevice
    disks: tuple[Disk, ...]


@dataclass
class Plan:
    """What imaging will do. Without a refusal boot_disk, layout and config are there.

    data_disks: for the storage pool, each by one of its paths; passed: controllers; scsi: data disks that the CVM gets
    singly, with the reason.
    """

    node: Node
    needs: Requirements
    boot_disk: Disk | None = None
    layout: Layout | None = None
    data_disks: tuple[Disk, ...] = ()
    passed: tuple[Passed, ...] = ()
    scsi: tuple[tuple[Disk, str], ...] = ()
    config: NodeConfig | None = None
    warnings: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, rule: str, message: str, hint: str) -> None:
        self.refusals.append(Refusal(rule, message, hint))

    def check(self) -> None:
        """Raise CornerstoneError (REFUSED) with every refusal, if there is one."""
        if self.refusals:
            first, *more = self.refusals
            rest = "".join(f"; also {refusal.id}: {refusal.message}" for refusal in more)
            raise CornerstoneError(f"{first.id}: {first.message}{rest}", first.hint, Code.REFUSED)


def make_plan(facts: Facts, site: Site, manifest: Manifest, reinstall: str = "") -> Plan:
    """Decide everything for the machine that facts describe. reinstall: the token on the kernel command line.

    CornerstoneError (REFUSED) when it is no node of the site, or the site says to leave it alone; all else that
    speaks against imaging is in the plan's refusals.
    """
    node = _node(facts, site)
    needs = Requirements.of(manifest.profile, manifest.epoch)
    vcpus = node.cvm_vcpus or needs.cvm_vcpus
    needs = replace(needs, cvm_memory=node.cvm_memory or needs.cvm_memory,
                    cvm_vcpus=min(vcpus or FEWEST_VCPUS, facts.cpu.threads))
    plan = Plan(node, needs)
    _check_hardware(plan, facts)
    _check_fit(plan, manifest)
    _choose_boot_disk(plan, facts)
    if plan.boot_disk is None:
        # which disks are for data can't be said before
        return plan
    _choose_data_disks(plan, facts)
    _choose_controllers(plan, facts)
    plan.needs = replace(plan.needs, data_disks=len(plan.data_disks))
    _check_hardware(plan, facts, of_choice=True)
    _check_identities(plan, facts)
    if not vcpus:
        plan.needs = replace(plan.needs, cvm_vcpus=_vcpus(plan, facts))
    _check_contents(plan, site, reinstall)
    if not plan.refusals:
        plan.layout = layout(plan.boot_disk.serial, plan.boot_disk.size, needs.root_slot)
        plan.config = _config(plan, site, manifest)
    return plan


def _node(facts: Facts, site: Site) -> Node:
    try:
        node = identify(site, facts)
    except CornerstoneError as error:
        raise CornerstoneError(f"node.identity: {error.message}", error.hint, Code.REFUSED) from error
    if not node.image:
        raise CornerstoneError(f"node.image: the site says to leave {node.hostname} as it is (image_now)",
                               "set image_now to true, or take the medium out", Code.REFUSED)
    return node


def _check_hardware(plan: Plan, facts: Facts, *, of_choice: bool = False) -> None:
    for verdict in check_machine(facts, plan.needs):
        if (verdict.rule.id in OF_CHOICE) != of_choice:
            continue
        spared = plan.node.passthrough == "scsi" and verdict.rule.id in NEED_PASSTHROUGH
        if verdict.outcome is Outcome.OK:
            continue
        if verdict.severity is Level.ERROR and not spared:
            plan.refuse(verdict.rule.id, verdict.message, verdict.rule.hint)
        elif verdict.severity is not Level.INFO:
            plan.warnings.append(f"{verdict.rule.id}: {verdict.message}")


def _check_fit(plan: Plan, manifest: Manifest) -> None:
    size = manifest.entry(HYPERVISOR).size
    if size > plan.needs.root_slot:
        plan.refuse("layer.fit", f"hypervisor.squashfs has {size // MIB} MiB and doesn't fit a root slot of "
                    f"{plan.needs.root_slot // MIB} MiB", "take an ISO whose profile has a larger root_slot")


def _choose_boot_disk(plan: Plan, facts: Facts) -> None:
    node, choice = plan.node, plan.node.boot_disk
    wanted = [disk for disk in facts.disks if choice is None or _fits(choice, disk)]
    why = {disk: unfit_for_boot(disk, facts, plan.needs) for disk in wanted}
    why |= {disk: "is excluded by exlude_boot_serial" for disk in wanted if node.never_boot == disk.serial != ""}
    fit = [disk for disk in wanted if not why[disk]]
    if len(fit) == 1:
        plan.boot_disk = fit[0]
        return
    if choice is None and not fit and any(refusal.id == "hw.boot-disk" for refusal in plan.refusals):
        return
    alike = {disk: ambiguity(disk, facts) for disk in wanted}
    if wanted and choice is not None and all(alike[disk] and why[disk] == alike[disk] for disk in wanted):
        for disk in wanted:
            _refuse_ambiguous(plan, disk, alike[disk])
        return
    found = f"{len(fit)} disks" if fit else "no disk"
    of = ("match" + "es" * (not fit) + " boot_disk of the site") if choice else "could be the boot disk"
    shown = "".join(f"\n  {disk}" + (f": {why[disk]}" if why.get(disk) else "")
                    for disk in (fit or wanted or facts.disks))
    plan.refuse("disk.boot-choice", f"{found} {of}, exactly one must:{shown}",
                "name the one in the site: boot_disk with its serial, below the node's key cornerstone")


def _choose_data_disks(plan: Plan, facts: Facts) -> None:
    choices, boot = plan.node.data_disks, plan.boot_disk
    others = [group for group in facts.groups() if boot not in group and facts.boot_medium not in
              [path.name for path in group]]
    why = {group: next(filter(None, (unfit_for_data(path, facts) for path in group)), "") for group in others}
    for choice in choices:
        matching = [group for group in others if _fits(choice, group[0])]
        shown = "".join(f"\n  {group[0]}" + (f": {why[group]}" if why[group] else "") for group in matching)
        if all(why[group] for group in matching):
            plan.refuse("disk.data-choice", f"no disk matches data_disks of the site ({_text(choice)}){shown}",
                        "correct data_disks in the site")
        elif (choice.serial or choice.wwn) and len(matching) > 1:
            plan.refuse("disk.ambiguous", f"data_disks of the site names one disk ({_text(choice)}), and "
                        f"{len(matching)} match:{shown}", "name it by what it has alone, or take the others out")
    plan.data_disks = tuple(group[0] for group in others if not why[group]
                            and (not choices or any(_fits(choice, group[0]) for choice in choices)))


def _choose_controllers(plan: Plan, facts: Facts) -> None:
    """Each controller with data disks whole, where nothing stands against it; else its disks singly.

    A disk that is seen by several paths goes with every controller that can be passed through, or singly, once.
    """
    boot = plan.boot_disk.controller if plan.boot_disk else ""
    paths = {disk: facts.paths(disk) for disk in plan.data_disks}
    disks_of: dict[str, list[Disk]] = {}
    for disk in plan.data_disks:
        for path in paths[disk]:
            disks_of.setdefault(path.controller, []).append(disk)
    passed: list[Passed] = []
    problems: dict[str, str] = {}
    for address, disks in disks_of.items():
        problem = obstacle(address, facts) or ("is the boot disk's controller" if address == boot else "")
        if plan.node.passthrough == "scsi":
            problem = "the site says scsi"
        elif plan.node.passthrough == "pci" and address not in plan.node.pci_addresses:
            continue
        device = facts.pci_device(address)
        if problem or device is None:
            problems[address] = problem
            if plan.node.passthrough == "pci":
                plan.refuse("disk.passthrough", f"controller {address} can't be passed through: it {problem}",
                            "take it out of passthrough in the site")
            continue
        passed.append(Passed(device, facts.disks_of(address)))
        more = [disk.name for disk in facts.disks_of(address) if not any(disk in paths[each] for each in disks)]
        if more:
            plan.warnings.append(f"with controller {address} the CVM sees {', '.join(more)} too, and leaves them alone")
        if not device.reset and any(other.reset for other in facts.pci):
            plan.warnings.append(f"controller {address} has no way to be reset: after a crash of the CVM it may need a "
                                 "restart of the host")
    for address in plan.node.pci_addresses:
        if address not in disks_of:
            plan.refuse("disk.passthrough", f"passthrough of the site names {address}, which has no data disk",
                        "correct the address, or take it out")
    whole = {disk for entry in passed for disk in disks_of[entry.device.address]}
    singly = {disk: problems[disk.controller] for disk in plan.data_disks
              if disk not in whole and disk.controller in problems}
    _warn_of_single_disks(plan, singly)
    for disk in plan.data_disks:
        if left := [path.name for path in paths[disk] if disk in whole and path.controller in problems]:
            plan.warnings.append(f"{disk.name}: the host goes on seeing it as {', '.join(left)}, and must leave it "
                                 "alone")
    plan.passed, plan.scsi = tuple(passed), tuple(singly.items())
    plan.data_disks = tuple(disk for disk in plan.data_disks if disk in whole or disk in singly)


def _warn_of_single_disks(plan: Plan, singly: Mapping[Disk, str]) -> None:
    if plan.node.passthrough == "scsi":
        return
    alike: dict[tuple[str, str, str], list[str]] = {}
    for disk, problem in singly.items():
        alike.setdefault((single_kind(disk), disk.controller, problem), []).append(disk.name)
    for (kind, address, problem), names in alike.items():
        why = f"controller {address} {problem}" if address else "no PCI function is known as the controller"
        plan.warnings.append(f"{', '.join(names)}: the CVM gets {kind}s, because {why}")


def single_kind(disk: Disk) -> str:
    """Return as what the Controller VM gets a disk that isn't passed through with its controller."""
    return "block device" if disk.transport in NOT_SCSI else "raw SCSI device"


def _check_identities(plan: Plan, facts: Facts) -> None:
    """Refuse each disk to be written that whoever goes by its serial could take for another, or another for it."""
    for disk in filter(None, (plan.boot_disk, *plan.data_disks)):
        if problem := ambiguity(disk, facts):
            _refuse_ambiguous(plan, disk, problem)
    boot = plan.boot_disk
    for disk in plan.data_disks:
        # an array may tell another serial by each path to one disk
        if boot is not None and disk.wwn and disk.wwn == boot.wwn:
            plan.refuse("disk.ambiguous", f"{disk} has the WWN of the boot disk {boot}, {disk.wwn}: it may be a path "
                        "to it", "cable the boot disk by one path, or leave the other out with data_disks in the site")


def _refuse_ambiguous(plan: Plan, disk: Disk, problem: str) -> None:
    plan.refuse("disk.ambiguous", f"{disk}, {disk.wwn or 'no WWN'}, {problem}",
                "take one of them out, or leave the disk out with data_disks in the site; controllers and enclosures "
                "that make serials up often have a firmware that doesn't")


def _vcpus(plan: Plan, facts: Facts) -> int:
    """The Controller VM's CPUs by the NUMA node that most of its controllers hang off, else the first."""
    homes = Counter(entry.device.numa for entry in plan.passed if entry.device.numa is not None)
    home = homes.most_common(1)[0][0] if homes else 0
    cores = next((node.cores for node in facts.cpu.numa if node.id == home), facts.cpu.cores)
    return cvm_vcpus(cores, facts.cpu.threads)


def _check_contents(plan: Plan, site: Site, reinstall: str) -> None:
    tokens = dict(plan.node.erase_tokens)
    again = bool(site.reinstall_token) and reinstall == site.reinstall_token
    if reinstall and not again:
        plan.refuse("node.reinstall", "the token of foundation.reinstall isn't the site's reinstall_token",
                    "correct the one or the other")
    for disk in filter(None, (plan.boot_disk, *plan.data_disks)):
        contents = disk.contents
        if contents.empty or contents.unfinished:
            continue
        if disk == plan.boot_disk and contents.installed is not None:
            if not again:
                plan.refuse("disk.installed", f"{disk} is the boot disk of {contents.installed.hostname}, which is "
                            "installed already", "boot it from that disk; to install it anew, give the site a "
                            "reinstall_token and the kernel foundation.reinstall with the same text")
            continue
        word = f'{{"{disk.serial}": "{disk.token}"}}'
        hint = "all on it may go" if contents.osd is None else (
            f"it may go: it holds {contents}, and what it stores may be nowhere else")
        if disk.serial not in tokens:
            plan.refuse("disk.not-empty", f"{disk} isn't empty: {contents}",
                        f"take it out, or, if {hint}, give the node of the site erase_tokens: {word}")
        elif tokens[disk.serial] != disk.token:
            plan.refuse("disk.token", f"the site's token for {disk} is for another disk or other contents than "
                        f"{contents}", f"if {hint}, write {word}")


def _config(plan: Plan, site: Site, manifest: Manifest) -> NodeConfig:
    node, disk, uplink = plan.node, plan.boot_disk, plan.node.uplink
    if disk is None:
        raise ValueError("a plan without a boot disk has no configuration")
    cluster = site.cluster_of(node)
    dns = cluster.cvm_dns_servers if cluster and cluster.cvm_dns_servers else site.nameservers
    return NodeConfig(
        manifest.identity, manifest.profile["name"], node.serial, node.block_id, node.position, disk.serial,
        Hypervisor(node.hostname, str(node.hypervisor), str(site.hypervisor_gateway),
                   tuple(map(str, site.nameservers)), cluster.hypervisor_ntp_servers if cluster else (),
                   Uplink(uplink.macs, uplink.mode, uplink.lacp, uplink.lacp_rate, uplink.vlan, uplink.mtu,
                          tuple("=".join(option) for option in uplink.options))),
        Cvm(node.cvm_name, str(node.cvm), str(site.cvm_gateway), tuple(map(str, dns)),
                   cluster.cvm_ntp_servers if cluster else (), plan.needs.cvm_memory,
                   plan.needs.cvm_vcpus, tuple(entry.device.address for entry in plan.passed),
                   tuple(entry.serial for entry, _ in plan.scsi),
                   tuple(DataDisk(each.serial, each.wwn, each.size, _may_go(node, each), each.model)
                         for each in plan.data_disks)),
        Cluster(cluster.name, tuple(map(str, cluster.members)), cluster.redundancy_factor, cluster.form,
                str(cluster.address or ""), str(cluster.data_services or ""), cluster.timezone,
                cluster.patience, tuple(str(each.hypervisor.ip) for each in site.nodes
                                        if each.cvm.ip in cluster.members)) if cluster else None,
        site.authorized_keys, manifest.profile["aos"], tuple(map(str, site.ssh_from)),
        aos_beside=tuple(manifest.profile.get("aos_beside", ())))


def _may_go(node: Node, disk: Disk) -> str:
    """Return the fingerprint of what may be erased: _check_contents has refused a token that isn't this disk's."""
    allowed = disk.contents.unfinished or dict(node.erase_tokens).get(disk.serial) == disk.token
    return disk.contents.fingerprint if allowed else ""


def _fits(choice: DiskChoice, disk: Disk) -> bool:
    return choice.fits(serial=disk.serial, wwn=disk.wwn, model=disk.model, size=disk.size)


def _text(choice: DiskChoice) -> str:
    bounds = [f"at least {choice.min_size} bytes" * bool(choice.min_size),
              f"at most {choice.max_size} bytes" if choice.max_size is not None else ""]
    words = [f"{name} {value}" for name in ("serial", "wwn", "model") if (value := getattr(choice, name))]
    return ", ".join(filter(None, [*words, *bounds]))
