"""The text screen: asks, on whichever console somebody speaks first, what a site of this one machine needs.

Plain lines, one question each, so that it works on a serial line too. Every answer is checked at once with the model's
own fields and rules; `back` returns to the question before, `again` to the first.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import select
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from cornerstone.foundation.installer.screen import WIDTH, console_devices
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.facts import Disk, Facts
from cornerstone.model.rules.fitness import ambiguity, data_disks, is_removable
from cornerstone.model.site.fields import CLUSTER, CLUSTER_EXTRA, EXTRA, NODE, SERIAL, SITE, SITE_EXTRA
from cornerstone.model.site.file import SiteError, as_text, read_site
from cornerstone.model.site.kinds import Notes
from cornerstone.model.site.rules import RULES

Answers = dict[str, Any]
SECRET_BYTES = 32
NONE = "none"


@dataclass(frozen=True)
class Question:
    """One line that is asked: its label, what to write, the default from earlier answers ("" for none), and how an
    answer is read: read(text, notes) gives the value, or notes what is wrong."""

    name: str
    label: str
    example: str
    default: Callable[[Answers], str]
    read: Callable[[str, Notes], Any]


class Console:
    """Terminals of which one, the first that somebody writes on, carries the conversation."""

    def __init__(self, devices: Sequence[Path]) -> None:
        self._open: list[int] = []
        for device in devices:
            # a serial port that the kernel was told of need not be there; and none is waited for
            with contextlib.suppress(OSError):
                self._open.append(os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
                os.set_blocking(self._open[-1], True)
        self._heard = {each: b"" for each in self._open}

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            os.close(each)

    def wait(self, text: str, seconds: float | None = None) -> None:
        """Show a text on all, and wait for a line on any, at most some seconds when these are given."""
        self.say(text)
        self._line(seconds)

    def invite(self, text: str) -> None:
        """Wait likewise, and speak only where the line came from, from then on."""
        self.wait(text)
        others = [each for each in self._open if each != self._chosen]
        for each in others:
            with contextlib.suppress(OSError):
                os.write(each, b"\nThe questions are being answered on another console.\n")
        self._heard = {self._chosen: self._heard[self._chosen]}

    def ask(self, text: str) -> str:
        """Show a text and wait for a line."""
        self.say(text, end="")
        return self._line()

    def say(self, text: str, end: str = "\n") -> None:
        for each in list(self._heard):
            with contextlib.suppress(OSError):
                os.write(each, (text + end).encode())

    def _line(self, seconds: float | None = None) -> str:
        """Return the next line of any terminal, "" when none came in time. CornerstoneError without any terminal."""
        end = None if seconds is None else time.monotonic() + seconds
        while self._heard or end is not None:
            for each, heard in self._heard.items():
                if b"\n" in heard:
                    line, _, self._heard[each] = heard.partition(b"\n")
                    self._chosen = each
                    return line.decode(errors="replace").strip()
            left = None if end is None else max(end - time.monotonic(), 0)
            ready = select.select(list(self._heard), [], [], left)[0]
            if left == 0 and not ready:
                return ""
            for each in ready:
                try:
                    more = os.read(each, 4096).replace(b"\r", b"\n")
                except OSError:
                    more = b""
                if more:
                    self._heard[each] += more
                else:
                    del self._heard[each]
        raise CornerstoneError("no console is left to ask on", "bring a site file: docs/site.md says how",
                               Code.MACHINE)


def ask_site(facts: Facts, devices: Sequence[Path] | None = None) -> bytes:
    """A site file of this one machine, from a person's answers; waits for ever for the first. It passes read_site.

    devices: the terminals, tty1 and the kernel's serial consoles by default.
    """
    questions = _questions(facts)
    with Console(console_devices() if devices is None else devices) as console:
        console.invite("\nNo site file was found. To set this machine up alone, as a cluster of one node,\n"
                       "press Enter on this console.")
        console.say("\nEnter takes what is in brackets; `back` returns to the question before,\n"
                    "`again` starts over.\n" + _disk_list(facts))
        while True:
            answers = _conversation(console, questions, facts)
            content = as_text(document(answers, facts, complete=True)).encode()
            try:
                read_site(content)
                return content
            except SiteError as error:
                # what no single answer showed
                console.say(f"\n{error}\n")


def document(answers: Answers, facts: Facts, *, complete: bool = False) -> dict[str, Any]:
    """Foundation's JSON from the answers so far; complete: with what nobody is asked for."""
    def given(**names: str) -> dict[str, Any]:
        return {field: answers[name] for field, name in names.items() if answers.get(name) not in (None, "")}

    dmi_serial = SERIAL.read(facts.dmi.serial, "", Notes())
    macs = [nic.mac for nic in facts.nics if not nic.usb]
    node = {"node_position": "A", "hypervisor": "kvm", **({"node_serial": dmi_serial} if dmi_serial else {}),
            **given(hypervisor_hostname="hostname", hypervisor_ip="hypervisor", cvm_ip="cvm")}
    extra = {**({} if dmi_serial else {"nic_macs": macs}), **_disks_of(answers, facts)}
    gateway: IPv4Interface | None = answers.get("gateway")
    network = {"gateway": str(gateway.ip), "netmask": str(gateway.netmask)} if gateway else {}
    cluster = {"redundancy_factor": 1, "single_node_cluster": True,
               **given(cluster_name="cluster", cvm_dns_servers="dns", cvm_ntp_servers="ntp",
                       hypervisor_ntp_servers="ntp"),
               **({"cluster_members": [answers["cvm"]]} if "cvm" in answers else {}),
               EXTRA: {**given(data_services_ip="data_services"),
                       **({"bootstrap_secret": base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}
                          if complete else {})}}
    return {
        **{f"{role}_{name}": value for role in ("cvm", "hypervisor") for name, value in network.items()},
        **given(current_cvm_vlan_tag="vlan", hypervisor_nameserver="dns"),
        "blocks": [{"nodes": [{**node, **({EXTRA: extra} if extra else {})}]}],
        "clusters": [cluster],
        **({EXTRA: {"authorized_keys": [answers["key"]]}} if answers.get("key") else {}),
    }


def _disks_of(answers: Answers, facts: Facts) -> dict[str, Any]:
    """What the site says of disks: which one is booted from, which may be erased, and which are left as they are."""
    boot = answers.get("disk")
    erased = {disk.serial: token for disk in _full(facts) if (token := answers.get(_erase(disk)))}
    kept = [disk.serial for disk in _full(facts) if answers.get(_erase(disk)) == "" and disk.serial != boot]
    fit, named = data_disks(facts), _disks(facts)
    others = [{"serial": disk.serial} for disk in named if disk in fit and disk.serial not in (boot, *kept)]
    left = kept or any(ambiguity(disk, facts) for disk in fit)
    return {**({"boot_disk": {"serial": boot}} if boot else {}), **({"erase_tokens": erased} if erased else {}),
            **({"data_disks": others} if left and others else {})}


def _conversation(console: Console, questions: Sequence[Question], facts: Facts) -> Answers:
    """All answers, confirmed."""
    answers: Answers = {}
    texts: dict[str, str] = {}
    at = 0
    while True:
        question = questions[at] if at < len(questions) else None
        if question:
            default = texts.get(question.name) or question.default(answers)
            text = console.ask(f"{question.label} ({question.example})" + (f" [{default}]" if default else "") + ": ")
        else:
            console.say("\n" + "\n".join(f"{each.label:<33} {texts[each.name]}" for each in questions))
            text, default = console.ask("\nType yes to go on with this, back or again to change it: "), ""
        if text in ("back", "again"):
            at = max(at - 1, 0) if text == "back" else 0
            continue
        if question is None:
            if text == "yes":
                return answers
            continue
        notes = Notes()
        value = question.read(text or default, notes)
        # answers that come after this one are asked for again, with what was said as the default
        before = {each.name: answers[each.name] for each in questions[:at]}
        answers = {**before, question.name: value}
        if not notes.problems:
            for rule in RULES:
                rule(document(answers, facts), notes)
            _check_boot_disk(answers, facts, notes)
        if notes.problems:
            for problem in notes.problems:
                console.say(textwrap.fill(f"{problem.reason}: {problem.hint}", WIDTH, initial_indent="  ",
                                          subsequent_indent="  "))
            answers = before
            continue
        texts[question.name] = text or default
        at += 1


def _questions(facts: Facts) -> list[Question]:
    def field(kind, *, optional: bool = False) -> Callable[[str, Notes], Any]:
        return lambda text, notes: "" if optional and text == NONE else kind.read(text, "", notes)

    def vlan(text: str, notes: Notes) -> int | None:
        # only digits are a number to int() here: it takes 1_0 and the digits of other scripts too
        value = int(text) if text.isascii() and text.isdigit() else text
        return SITE["current_cvm_vlan_tag"].kind.read(value, "", notes)

    def nothing(answers: Answers) -> str:
        return ""

    def no_more(answers: Answers) -> str:
        return NONE

    disks = _disks(facts)
    choice = [Question("disk", "Boot disk", "its number in the list above, or its serial",
                       lambda answers: "1" if len(disks) == 1 else "", lambda text, notes: _disk(text, disks, notes))]
    return [
        Question("hostname", "Host name", "of the hypervisor", lambda answers: "node-1",
                 field(NODE["hypervisor_hostname"].kind)),
        Question("gateway", "Gateway", "with prefix length, 10.20.0.1/24", nothing, _gateway),
        Question("vlan", "VLAN", "0 for untagged", lambda answers: "0", vlan),
        Question("hypervisor", "Address of the hypervisor", "such as 10.20.0.11", nothing,
                 field(NODE["hypervisor_ip"].kind)),
        Question("cvm", "Address of its Controller VM", "in the same network", _next_address,
                 field(NODE["cvm_ip"].kind)),
        *(choice if disks else []),
        *(Question(_erase(disk), f"Erase {disk.name}, serial {disk.serial}",
                   f"{_costs(disk)}{disk.token} lets all on it go, {NONE} leaves it alone", no_more,
                   lambda text, notes, disk=disk: _token(text, disk, notes)) for disk in _full(facts)),
        Question("cluster", "Name of the cluster", "letters, digits, dots and dashes",
                 lambda answers: answers["hostname"].partition(".")[0], field(CLUSTER["cluster_name"].kind)),
        Question("data_services", "Address of its iSCSI target", NONE, no_more,
                 field(CLUSTER_EXTRA["data_services_ip"].kind, optional=True)),
        Question("dns", "Name servers", "addresses with commas", no_more,
                 field(CLUSTER["cvm_dns_servers"].kind, optional=True)),
        Question("ntp", "Time servers", "with commas", no_more, field(CLUSTER["cvm_ntp_servers"].kind, optional=True)),
        Question("key", "Public ssh key of root", "a line of a .pub file", no_more, _key),
    ]


def _key(text: str, notes: Notes) -> str:
    keys = None if text == NONE else SITE_EXTRA["authorized_keys"].kind.read([text], "", notes)
    return keys[0] if keys else ""


def _gateway(text: str, notes: Notes) -> IPv4Interface | None:
    address, _, prefix = text.partition("/")
    SITE["cvm_gateway"].kind.read(address, "", notes)
    try:
        found = IPv4Interface(text)
        if not prefix:
            raise ValueError
    except ValueError:
        return notes.wrong("", f"'{text}' has no prefix length", "such as 10.20.0.1/24")
    SITE["cvm_netmask"].kind.read(str(found.netmask), "", notes)
    return found


def _next_address(answers: Answers) -> str:
    with contextlib.suppress(ValueError):
        return str(IPv4Interface(answers["hypervisor"]).ip + 1)
    return ""


def _disks(facts: Facts) -> list[Disk]:
    """Return those that may be chosen, each once: not the medium, nor what no serial, or no serial alone, names."""
    return [group[0] for group in facts.groups() if group[0].serial and not ambiguity(group[0], facts)
            and facts.boot_medium not in [path.name for path in group]]


def _disk(text: str, disks: Sequence[Disk], notes: Notes) -> str | None:
    serials = [disk.serial for disk in disks]
    if text.isascii() and text.isdigit() and 1 <= int(text) <= len(disks) and text not in serials:
        return serials[int(text) - 1]
    return text if text in serials else notes.wrong("", f"'{text}' is none of them", f"1 to {len(disks)}, or a serial")


def _full(facts: Facts) -> list[Disk]:
    """Those of them that hold something, and so are written only with a token."""
    return [disk for disk in _disks(facts)
            if not (is_removable(disk) or disk.contents.empty or disk.contents.unfinished)]


def _erase(disk: Disk) -> str:
    return f"erase {disk.serial}"


def _costs(disk: Disk) -> str:
    return f"it holds {disk.contents}, whose data may be nowhere else; " if disk.contents.osd else ""


def _token(text: str, disk: Disk, notes: Notes) -> str | None:
    if text in (NONE, disk.token):
        return "" if text == NONE else text
    return notes.wrong("", f"'{text}' isn't this disk's token", f"{disk.token}, or {NONE}")


def _check_boot_disk(answers: Answers, facts: Facts, notes: Notes) -> None:
    for disk in _full(facts):
        # a node that is installed is refused, or installed again, by other tokens
        if disk.serial == answers.get("disk") and answers.get(_erase(disk)) == "" and disk.contents.installed is None:
            notes.wrong("", f"{disk.name} is the boot disk, and isn't empty",
                        "its token, or back, to choose another boot disk")


def _disk_list(facts: Facts) -> str:
    rows = [f"  {number}  {disk}: {disk.contents}\n" for number, disk in enumerate(_disks(facts), 1)]
    rows += [f"     {disk}: {problem}; it can't be used\n" for disk in facts.disks
             if (problem := ambiguity(disk, facts))]
    return "\nDisks:\n" + "".join(rows) if rows else "\nNo disk has a serial number, so none can be named here.\n"
