"""Files of Ceph's daemons, which run as the user ceph."""

from __future__ import annotations

import shutil
from pathlib import Path

from cornerstone.lib.atomic import beside, settle, sweep

CONF = Path("/etc/ceph/ceph.conf")
ADMIN_KEYRING = Path("/etc/ceph/ceph.client.admin.keyring")
HOME = Path("/var/lib/ceph")
USER = "ceph"


def write(path: Path, text: str, user: str = "root", mode: int = 0o644) -> None:
    """Write a file, whole or not at all; nobody sees it with other rights than these."""
    sweep(path)
    with beside(path, 0o600) as new:
        new.write_text(text)
        shutil.chown(new, user, user)
        new.chmod(mode)
        settle(new, path)


def folder(path: Path) -> Path:
    """Make a folder of the user ceph alone."""
    path.mkdir(mode=0o750, exist_ok=True)
    shutil.chown(path, USER, USER)
    return path


def keyring(entity: str, key: str, **capabilities: str) -> str:
    """Return the text of a keyring with one key; capabilities only where the keyring grants them: mon="allow *"."""
    caps = "".join(f'\tcaps {service} = "{what}"\n' for service, what in capabilities.items())
    return f"[{entity}]\n\tkey = {key}\n{caps}"
