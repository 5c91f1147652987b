"""The monitor of this node, if it has one.

Each makes its store from the same id, map and keys, so in whatever order they come, they find to one quorum.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cornerstone.cvm.ceph import conf, files, osd
from cornerstone.cvm.ceph.tool import run
from cornerstone.cvm.disks import Disk
from cornerstone.cvm.membership import Membership, words
from cornerstone.cvm.node import Node
from cornerstone.lib.error import Code, CornerstoneError


def unit(node: Node) -> str:
    return f"ceph-mon@{conf.name(node.address)}.service"


def prepare(node: Node, data_disks: Iterable[Disk] = ()) -> None:
    """Make the monitor's store, unless it is there, and rename it into place when it is whole.

    data_disks: those with this cluster's OSDs, of whose maps and keys it is made when the cluster is recovered.
    """
    store = files.HOME / "mon" / f"ceph-{conf.name(node.address)}"
    if store.exists():
        words.forget(words.RECOVER)
        return
    recovering = words.said(words.RECOVER)
    node.say("making the monitor's store" + (" of what its OSDs know" if recovering else ""))
    new = store.with_name(f".{store.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    files.folder(new)
    with tempfile.TemporaryDirectory() as scratch:
        keyring, monmap = Path(scratch, "keyring"), Path(scratch, "monmap")
        shutil.chown(scratch, files.USER, files.USER)
        files.write(keyring, first_keyring(node.member), files.USER, 0o600)
        members = conf.monitors(node.members)
        run("monmaptool", "--create", "--fsid", node.member.fsid,
            *(word for address in members for word in ("--addv", conf.name(address), conf.address_vector(address))),
            monmap)
        run("ceph-mon", "--mkfs", "--id", conf.name(node.address), "--mon-data", new, "--monmap", monmap,
            "--keyring", keyring, "--setuser", files.USER, "--setgroup", files.USER)
        if recovering:
            _rebuild(node, new, keyring, monmap, data_disks)
    os.sync()
    new.rename(store)


def _rebuild(node: Node, store: Path, keyring: Path, monmap: Path, data_disks: Iterable[Disk]) -> None:
    """Replace a new store's database by one of what the OSDs know: all maps, and their own keys.

    https://docs.ceph.com/en/reef/rados/troubleshooting/troubleshooting-mon/#recovery-using-osds
    """
    collected = files.folder(store / "collected")
    for disk in data_disks:
        number = osd.activate(disk, disk.osd)
        if number is None:
            raise CornerstoneError(f"the OSD on {disk} isn't whole", "the cluster can't be recovered from it",
                                   Code.REFUSED)
        run("ceph-objectstore-tool", "--no-mon-config", "--data-path", osd.HOME / f"ceph-{number}", "--op",
            "update-mon-db", "--mon-store-path", collected)
        _give_to_ceph(osd.HOME / f"ceph-{number}")
    run("ceph-monstore-tool", collected, "rebuild", "--", "--keyring", keyring, "--monmap", monmap, "--mon-ids",
        conf.name(node.address))
    shutil.rmtree(store / "store.db")
    (collected / "store.db").rename(store / "store.db")
    shutil.rmtree(collected)
    _give_to_ceph(store)


def _give_to_ceph(folder: Path) -> None:
    """Give what root's tools have written in a folder to Ceph's daemons."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, files.USER, files.USER)


def first_keyring(membership: Membership) -> str:
    """What every monitor begins with: the monitors' common key and the admin's."""
    everything = {service: "allow *" for service in ("mon", "osd", "mgr", "mds")}
    return (files.keyring("mon.", membership.monitor_key, mon="allow *")
            + files.keyring("client.admin", membership.admin_key, **everything))
