"""A plan for people: each disk before and after, what is passed through and why, every warning and refusal."""

from __future__ import annotations

from cornerstone.foundation.installer.plan import Plan, single_kind
from cornerstone.lib.printable import printable_lines
from cornerstone.model.contracts.facts import Disk
from cornerstone.model.disk.slot_disk import MIB
from cornerstone.model.site.site import Bmc

WIDTH = 11
GIB = 1 << 30


def lines(plan: Plan) -> list[str]:
    """The whole plan, a line for each thing; printable, as names and labels on disks may be anything."""
    node = plan.node
    rows = [("Node", f"{node}: host {node.hypervisor}, CVM {node.cvm} ({node.cvm_name})")]
    if node.bmc is not None:
        rows.append(("BMC", _bmc(node.bmc)))
    if plan.boot_disk is not None:
        rows += [("Boot disk", str(plan.boot_disk)), ("", f"before  {_before(plan.boot_disk)}"),
                 ("", f"after   {_after(plan)}")]
    singly = dict(plan.scsi)
    for disk in plan.data_disks:
        way = (f"as a {single_kind(disk)}, because its controller {singly[disk]}" if disk in singly
               else f"with its controller {disk.controller}")
        rows += [("Data disk", str(disk)), ("", f"before  {_before(disk)}"), ("", f"after   storage pool, {way}")]
    rows += [("Controller", f"{entry.device} is passed through whole, IOMMU group {entry.device.group}, "
                            f"with {', '.join(disk.name for disk in entry.disks)}") for entry in plan.passed]
    if not plan.refusals:
        rows.append(("CVM", f"{plan.needs.cvm_vcpus} CPUs, {plan.needs.cvm_memory / GIB:.1f} GiB"))
    rows += [("Warning", warning) for warning in plan.warnings]
    for refusal in plan.refusals:
        rows += [("Refused", f"{refusal.id}: {refusal.message}"), ("", f"hint: {refusal.hint}")]
    return [f"{label:<{WIDTH}}{part}" if number == 0 else f"{'':<{WIDTH}}{part}"
            for label, text in rows for number, part in enumerate(printable_lines(text).split("\n"))]


def _bmc(bmc: Bmc) -> str:
    """What is done to the BMC before anything is imaged."""
    if not bmc.configure:
        return f"its address is compared with {bmc.address.ip}, and nothing is set"
    account = f"; {bmc.user}'s password is set" if bmc.user else ""
    return f"its address is set to {bmc.address}, gateway {bmc.gateway}{account}"


def _before(disk: Disk) -> str:
    contents = disk.contents
    if contents.installed is not None:
        return f"node {contents.installed.hostname}, installed"
    return "an imaging that was cut off" if contents.unfinished else str(contents)


def _after(plan: Plan) -> str:
    if plan.layout is None:
        return "unchanged, for the reasons below"
    return ", ".join(f"{each.name} {each.size // MIB} MiB" for each in plan.layout.partitions)
