"""The kernel's target, LIO, by python3-rtslib-fb: read as a Target, changed step by step.

Nothing here is kept over a restart: the kernel forgets, and data-services makes it anew from the catalogue.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rtslib_fb import LUN as TargetLun
from rtslib_fb import (
    TPG,
    ALUATargetPortGroup,
    BlockStorageObject,
    FabricModule,
    MappedLUN,
    NetworkPortal,
    NodeACL,
    RTSRoot,
    Target,
)
from rtslib_fb.utils import RTSLibError

from cornerstone.cvm.iscsi_target import target
from cornerstone.cvm.iscsi_target.target import STANDBY, Lun, Step
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts import ports
from cornerstone.model.contracts.iscsi import Initiator

# reservations aren't shared between CVMs, and a copy by the target isn't fenced: initiators must not count on either
ATTRIBUTES = {"emulate_pr": "0", "emulate_3pc": "0", "emulate_tpu": "1"}
TPG_ATTRIBUTES = {"authentication": "1", "generate_node_acls": "0", "demo_mode_discovery": "0"}
# implicit: we may change a state; explicit: so may an initiator, and that is how it asks for a volume
IMPLICIT_AND_EXPLICIT = 3


class Lio:
    """This CVM's target portal group in the kernel. records: the folder where the kernel writes ALUA states down."""

    def __init__(self, name: str, tag: int, records: Path) -> None:
        self._records = records
        self._root = RTSRoot()
        records.mkdir(mode=0o700, parents=True, exist_ok=True)
        alua = Path(self._root.dbroot) / "alua"
        if alua.resolve() != records.resolve():
            with contextlib.suppress(FileNotFoundError):
                alua.rmdir()
            alua.symlink_to(records)
        self._target = Target(FabricModule("iscsi"), name)
        self._tpg = TPG(self._target, tag)
        for key, value in TPG_ATTRIBUTES.items():
            self._tpg.set_attribute(key, value)
        self._tpg.enable = True

    def present(self) -> target.Target:
        """As it is in the kernel."""
        return target.Target(
            self._target.wwn, self._tpg.tag,
            frozenset(portal.ip_address for portal in self._tpg.network_portals),
            frozenset(Lun(lun.lun, lun.storage_object.wwn) for lun in self._tpg.luns),
            frozenset(Initiator(acl.node_wwn, acl.chap_password) for acl in self._tpg.node_acls))

    def take(self, step: Step) -> None:
        """Do one step. RTSLibError when the kernel won't."""
        if isinstance(step.what, Lun):
            (self._add_lun if step.verb == "add" else self._remove_lun)(step.what)
        elif isinstance(step.what, Initiator):
            (self._add_initiator if step.verb == "add" else self._remove_initiator)(step.what)
        elif step.verb == "add":
            NetworkPortal(self._tpg, step.what, ports.ISCSI)
        else:
            NetworkPortal(self._tpg, step.what, ports.ISCSI, mode="lookup").delete()

    def _add_lun(self, lun: Lun) -> None:
        # made whole before anybody sees it: an earlier try's remains go first
        self._forget(lun)
        store = BlockStorageObject(lun.backstore, f"/dev/mapper/{lun.backstore}", lun.serial)
        for key, value in ATTRIBUTES.items():
            store.set_attribute(key, value)
        self._record(lun).parent.mkdir(mode=0o700, exist_ok=True)
        group = ALUATargetPortGroup(store, self._group, self._tpg.tag)
        group.alua_access_type = IMPLICIT_AND_EXPLICIT
        group.alua_support_standby = 1
        group.alua_access_state = STANDBY
        group.alua_write_metadata = 1
        made = TargetLun(self._tpg, lun.number, store)
        made.alua_tg_pt_gp_name = self._group
        for acl in self._tpg.node_acls:
            MappedLUN(acl, lun.number, lun.number)

    def _remove_lun(self, lun: Lun) -> None:
        # with the LUN go its mappings; it waits for commands that are under way
        TargetLun(self._tpg, lun.number).delete()
        self._forget(lun)

    def _forget(self, lun: Lun) -> None:
        with contextlib.suppress(RTSLibError):
            BlockStorageObject(lun.backstore).delete()

    def _add_initiator(self, initiator: Initiator) -> None:
        acl = NodeACL(self._tpg, initiator.name, mode="create")
        acl.chap_userid = initiator.name
        acl.chap_password = initiator.secret
        for lun in self._tpg.luns:
            MappedLUN(acl, lun.lun, lun.lun)

    def _remove_initiator(self, initiator: Initiator) -> None:
        NodeACL(self._tpg, initiator.name, mode="lookup").delete()

    @property
    def _group(self) -> str:
        return f"cvm-{self._tpg.tag}"

    def _record(self, lun: Lun) -> Path:
        return self._records / f"tpgs_{lun.serial}" / self._group

    def state(self, lun: Lun) -> int:
        """Its ALUA access state here: ACTIVE once an initiator has asked this CVM for it."""
        with self._alua(lun) as alua:
            return alua.alua_access_state

    def set_state(self, lun: Lun, state: int) -> None:
        """Set it. While an initiator's change of it waits for an answer (asked.py), so does this."""
        with self._alua(lun) as alua:
            alua.alua_access_state = state

    @contextlib.contextmanager
    def _alua(self, lun: Lun) -> Iterator[ALUATargetPortGroup]:
        try:
            yield ALUATargetPortGroup(BlockStorageObject(lun.backstore), self._group)
        except RTSLibError as error:
            raise CornerstoneError(f"the ALUA state of {lun.backstore}: {error}", "see: dmesg", Code.FAILED) from error
