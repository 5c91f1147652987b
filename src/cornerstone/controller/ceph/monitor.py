"""The monitor of this node, if it has one.

Each makes its store from the same id, map and keys, so in whatever order they come, they find to one quorum.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from cornerstone.controller.ceph import conf, files
from cornerstone.controller.ceph.tool import run
from cornerstone.controller.membership import Membership
from cornerstone.controller.node import Node


def unit(node: Node) -> str:
    return f"ceph-mon@{conf.name(node.address)}.service"


def prepare(node: Node) -> None:
    """Make the monitor's store, unless it is there. The store is renamed into place when it is whole."""
    store = files.HOME / "mon" / f"ceph-{conf.name(node.address)}"
    if store.exists():
        return
    node.say("making the monitor's store")
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
    os.sync()
    new.rename(store)


def first_keyring(membership: Membership) -> str:
    """What every monitor begins with: the monitors' common key and the admin's."""
    everything = {service: "allow *" for service in ("mon", "osd", "mgr", "mds")}
    return (files.keyring("mon.", membership.monitor_key, mon="allow *")
            + files.keyring("client.admin", membership.admin_key, **everything))
