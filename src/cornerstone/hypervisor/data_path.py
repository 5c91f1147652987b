"""The host's end of the data path: logged in to the cluster's target on every CVM, with the volumes that there are.

The host's own CVM says what there is (Offer of model/contracts/iscsi.py): when its target has come up, and at each
change. Until it does, which after a power cut may take minutes, the portals of the last offer are what is known. One
process under data-path.service; data-path.socket listens on the internal address, so that no offer finds nobody.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cornerstone.hypervisor.command import run
from cornerstone.hypervisor.multipath import Run, maps, stop_queueing
from cornerstone.lib.atomic import put, sweep
from cornerstone.lib.deadline import within
from cornerstone.lib.error import Code, CornerstoneError, ends_in_one_line
from cornerstone.lib.event import Event, Listener, note, open_listeners, telling_the_end
from cornerstone.lib.failures import Failures
from cornerstone.lib.sysfs import read_text
from cornerstone.model.contracts.iscsi import (
    CVM_ADDRESS,
    INITIATOR_FILE,
    Answer,
    Initiator,
    Offer,
    device_name,
    from_line,
    to_line,
)
from cornerstone.model.contracts.places import EVENTS_FILE, STATE

STAGE = "hypervisor"
STEP = "data-path"
OFFER_SECONDS = 10
LONGEST_OFFER = 1 << 20
PAUSE_SECONDS = 1
# what systemd's socket activation hands over first
SOCKET = 3
# iscsiadm(8): there already; nothing there
EXISTS, NO_OBJECTS = 15, 21
# where open-iscsi keeps what it knows of portals: the newer releases, the older ones
RECORDS = (Path("/var/lib/iscsi/nodes"), Path("/etc/iscsi/nodes"))
# Of each portal, besides what open-iscsi has itself. Seconds: one that doesn't answer is given up after
# noop_out_interval + noop_out_timeout + replacement_timeout, then multipath takes another.
SETTINGS = {
    "node.startup": "automatic",
    "node.session.auth.authmethod": "CHAP",
    "node.session.auth.chap_algs": "SHA3-256,SHA256",
    "node.session.timeo.replacement_timeout": "5",
    "node.session.initial_login_retry_max": "4",
    "node.session.queue_depth": "64",
    "node.session.iscsi.FastAbort": "Yes",
    "node.conn[0].startup": "automatic",
    "node.conn[0].timeo.login_timeout": "10",
    "node.conn[0].timeo.logout_timeout": "10",
    "node.conn[0].timeo.noop_out_interval": "5",
    "node.conn[0].timeo.noop_out_timeout": "5",
}
_SESSION = re.compile(r"^tcp: \[\d+\] (\S+:\d+),(\d+) (\S+)", re.MULTILINE)


def sessions(listed: str) -> dict[str, set[str]]:
    """What `iscsiadm -m session` or `-m node` lists: by target, the portals as address:port,tag."""
    found: dict[str, set[str]] = {}
    for address, tag, target in _SESSION.findall(re.sub(r"^(?=\d)", "tcp: [0] ", listed, flags=re.MULTILINE)):
        found.setdefault(target, set()).add(f"{address},{tag}")
    return found


class DataPath:
    """Brings open-iscsi and multipath to what is offered; does only what is missing, so it may be asked again."""

    def __init__(self, initiator: Initiator, tell: Listener, run: Run = run,
                 devices: Path = Path("/sys/class/scsi_device"), records: Iterable[Path] = RECORDS,
                 block: Path = Path("/sys/block"), mapper: Path = Path("/dev/mapper")) -> None:
        self._settings = SETTINGS | {"node.session.auth.username": initiator.name,
                                     "node.session.auth.password": initiator.secret}
        self._records = records
        self._tell = tell
        self._run = run
        self._devices = devices
        self._block = block
        self._mapper = mapper
        # volumes that are gone and in use here, which is told once
        self._lost: set[str] = set()

    def recall(self) -> None:
        """Log in to all portals that earlier offers named, without waiting for those that don't answer."""
        self._run("iscsiadm", "--mode", "node", "--loginall", "automatic", "--no_wait")

    def take(self, offer: Offer) -> Answer:
        """Be logged in to an offer's portals and no others, and see its volumes.

        A device that has become another volume's, or whose volume is gone, goes before anything new is looked for.
        """
        before = self._identities()
        wanted = {str(portal) for portal in offer.portals}
        errors: list[str] = []
        for target, portals in sessions(self._list("node")).items():
            for portal in sorted(portals - wanted if target == offer.target else portals):
                self._node(target, portal, "--logout")
                self._node(target, portal, "--op", "delete")
        self._ask_anew(before)
        self._drop_changed(before)
        self._drop(offer.volumes)
        known = sessions(self._list("node")).get(offer.target, set())
        here = sessions(self._list("session")).get(offer.target, set())
        for portal in sorted(wanted - here):
            code, said = (0, "") if portal in known else self._node(offer.target, portal, "--op", "new")
            if not code:
                self._configure(offer.target, portal)
                # one that is down is logged in to when it is back: the CVM offers again until we are everywhere
                here_now = () if portal.startswith(f"{CVM_ADDRESS}:") else ("--no_wait",)
                code, said = self._node(offer.target, portal, "--login", *here_now)
            if code not in (0, EXISTS):
                errors.append(f"{portal}: {said.splitlines()[-1] if said else code}")
        # finds what has come since its login; a login looks for itself
        if here:
            self._run("iscsiadm", "--mode", "session", "--rescan")
            # it asks each device anew, too, and what has changed since goes; the CVM offers again what isn't seen
            self._drop_changed(before)
        here = sessions(self._list("session")).get(offer.target, set()) & wanted
        seen = self._seen()
        answer = Answer(tuple(sorted(here)), "; ".join(errors), tuple(
            serial for serial in offer.volumes if len(seen.get(device_name(serial), ())) < len(here)))
        self._tell(Event(STAGE, STEP, "warning" if errors else "progress" if answer.unseen else "done",
                         f"{len(answer.sessions)} of {len(wanted)} portals, {len(offer.volumes)} volumes"
                         + (f"; {answer.error}" if errors else "")))
        return answer

    def _list(self, mode: str) -> str:
        code, said = self._run("iscsiadm", "--mode", mode)
        if code not in (0, NO_OBJECTS):
            raise CornerstoneError(f"iscsiadm --mode {mode}: {said}", "see: journalctl -u iscsid", Code.FAILED)
        return said if code == 0 else ""

    def _node(self, target: str, portal: str, *words: str) -> tuple[int, str]:
        return self._run("iscsiadm", "--mode", "node", "--targetname", target, "--portal", portal, *words)

    def _configure(self, target: str, portal: str) -> None:
        """Put the settings into a portal's record. Not by iscsiadm: everybody may read its command line."""
        folder = portal.replace(":", ",")
        for records, path in [(each, path) for each in self._records for path in (each / target / folder).glob("*")]:
            # open-iscsi takes every file beside a record for one
            sweep(path, records.parent)
            put(path, merge_settings(path.read_text(), self._settings), 0o600, folder=records.parent)

    def _identities(self) -> dict[Path, set[str]]:
        """Our SCSI devices, each with the names that the kernel and multipath's maps have for its volume."""
        return {device: {name, *_held_by(device)} for name, devices in self._seen().items() for device in devices}

    def _ask_anew(self, devices: Iterable[Path]) -> None:
        """Have the kernel read again who its devices are (VPD page 0x83): it goes by what it read at first."""
        for device in devices:
            # of a session that is broken it would wait for the answer; multipathd asks when the path is back
            if read_text(device / "state") in ("", "running"):
                _write(device / "rescan")

    def _drop_changed(self, before: dict[Path, set[str]]) -> None:
        """Let go of devices that are another volume's than before. A scan finds them again, as what they are."""
        for device, names in list(before.items()):
            now = naa(device)
            if not now or not (others := names - {now}):
                continue
            was = ", ".join(sorted(others))
            self._tell(Event(STAGE, STEP, "warning", f"SCSI device {device.parent.name} was {was} and answers as {now}:"
                             " it is taken from its map"))
            for disk in sorted((device / "block").glob("*")):
                self._run("multipathd", "del", "path", disk.name)
            _write(device / "delete")
            del before[device]

    def _drop(self, volumes: Iterable[str]) -> None:
        """Forget what we have of volumes that are gone: what is queued for them fails, then maps and devices go."""
        kept = {device_name(serial) for serial in volumes}
        seen = self._seen()
        for name in sorted({*seen, *maps(self._block)} - kept):
            problems = stop_queueing(self._run, name)
            code, said = self._run("multipath", "-f", name)
            in_use = bool(code) and (self._mapper / name).exists()
            if in_use and name not in self._lost:
                self._lost.add(name)
                users = ", ".join(self._guests(name)) or "no guest, but a process of the host"
                self._tell(Event(STAGE, STEP, "warning", f"{name} is gone from the cluster and in use here, by {users}:"
                                 f" its reads and writes fail from now on; {'; '.join((*problems, said))}"))
            for device in seen.get(name, ()):
                _write(device / "delete")
            if in_use:
                # when its last user has closed it
                self._run("dmsetup", "remove", "--deferred", name)

    def _guests(self, name: str) -> Iterator[str]:
        """The running guests that have this map as a disk."""
        where = os.path.realpath(self._mapper / name)
        _, domains = self._run("virsh", "--quiet", "list", "--name")
        for domain in domains.splitlines():
            _, disks = self._run("virsh", "--quiet", "domblklist", domain)
            if where in map(os.path.realpath, disks.split()):
                yield domain

    def _seen(self) -> dict[str, list[Path]]:
        """Our SCSI devices by what multipath calls their volume."""
        found: dict[str, list[Path]] = {}
        for device in sorted(self._devices.glob("*/device")):
            if read_text(device / "vendor") == "LIO-ORG" and (name := naa(device)):
                found.setdefault(name, []).append(device)
        return found


def merge_settings(record: str, settings: Mapping[str, str]) -> str:
    """Return a record of open-iscsi with these settings: it is lines of `key = value` between two comments."""
    lines = [line for line in record.splitlines() if line.partition(" = ")[0] not in settings]
    end = next((number for number, line in enumerate(lines) if line.startswith("# END")), len(lines))
    return "\n".join((*lines[:end], *(f"{key} = {value}" for key, value in settings.items()), *lines[end:])) + "\n"


def naa(device: Path) -> str:
    """How multipath calls a SCSI device: 3 and its NAA id (VPD page 0x83); "" where it has none."""
    text = read_text(device / "wwid")
    return f"3{text.removeprefix('naa.')}" if text.startswith("naa.") else ""


def _held_by(device: Path) -> Iterator[str]:
    """Names of the multipath maps that a SCSI device is a path of."""
    for uuid in device.glob("block/*/holders/*/dm/uuid"):
        if (text := read_text(uuid)).startswith("mpath-"):
            yield text.removeprefix("mpath-")


def _write(path: Path) -> None:
    """Write 1 to an attribute of a device, which may be gone by now."""
    with contextlib.suppress(OSError):
        path.write_text("1\n")


def serve(listener: socket.socket, data_path: DataPath) -> None:
    """Take offers, one at a time, for ever. Only the host's own CVM makes any."""
    failures = Failures(note)
    while True:
        if not failures.attempt(take_one, listener, data_path):
            # what keeps offers from being taken, as too many open files, would be met again at once
            time.sleep(PAUSE_SECONDS)


def take_one(listener: socket.socket, data_path: DataPath) -> None:
    """Take the next offer and answer it. Raises OSError, with who makes it, when it breaks off or never ends."""
    peer, (address, _) = listener.accept()
    with peer:
        peer.settimeout(OFFER_SECONDS)
        if address != CVM_ADDRESS:
            return
        try:
            with within(peer, OFFER_SECONDS), peer.makefile("rb") as lines:
                line = lines.readline(LONGEST_OFFER)
            peer.sendall(to_line(answer(line, data_path)))
        except OSError as error:
            raise OSError(f"{address}: {error}") from error


def answer(line: bytes, data_path: DataPath) -> Answer:
    """Take the offer of a line; what is wrong with it is in the answer."""
    try:
        return data_path.take(check_offer(from_line(Offer, line, "offer")))
    except CornerstoneError as error:
        return Answer((), error.message)
    except Exception as error:
        # whatever is wrong with this one, the next is heard
        note(f"offer: {error!r}")
        return Answer((), f"the host can't take this offer: {error!r:.200}")


def check_offer(offer: Offer) -> Offer:
    """Return the offer. Raises CornerstoneError (REFUSED) for words that can't go on a command line."""
    for value, form in ((offer.target, r"iqn\.[a-z0-9.:-]{1,200}"),
                        *((portal.address, r"\d{1,3}(\.\d{1,3}){3}") for portal in offer.portals),
                        *((serial, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}") for serial in offer.volumes)):
        if not re.fullmatch(form, value):
            raise CornerstoneError(f"offer: {value!r:.60} isn't of the form {form}", "", Code.REFUSED)
    return offer


@ends_in_one_line
def main() -> int:
    """Take offers for ever; an error's code when first boot hasn't drawn this host's identity."""
    credential = STATE / Path(INITIATOR_FILE).name
    try:
        initiator = from_line(Initiator, credential.read_bytes(), str(credential))
    except OSError as error:
        raise CornerstoneError(f"{credential}: {error.strerror}", "see: journalctl -u first-boot") from error
    tell = open_listeners(STATE / EVENTS_FILE)
    with telling_the_end(tell, STAGE, STEP, again=True):
        data_path = DataPath(initiator, tell)
        data_path.recall()
        serve(socket.socket(fileno=SOCKET), data_path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
