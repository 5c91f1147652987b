"""The machine's BMC: give it the address of the site, or compare, by ipmitool through /dev/ipmi0.

A BMC can have several LAN channels, a port of its own and some of the host's: the site's ipmi_mac names the one, else
it is the one in use. All or nothing as far as IPMI allows: every setting is read back, and when one isn't there the old
ones are put back. A password goes to ipmitool's standard input, never into its arguments, and is set last: an old one
can't be read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface

from cornerstone.lib import command
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.site.site import Bmc

# A BMC that is busy answers late; one that hangs answers never.
COMMAND_SECONDS = 30
# Many need seconds to apply what they have taken.
APPLY_SECONDS = 20.0
POLL_SECONDS = 1.0
# Channels that can be a LAN's (IPMI 2.0, table 6-1).
CHANNELS = range(1, 12)
UNSET = ("", "0.0.0.0")  # noqa: S104 (what a BMC says when nobody has set it)
LAN_CHANNEL = re.compile(r"^Channel (0x[0-9a-f]+) info:\n +Channel Medium Type +: 802\.3 LAN$", re.MULTILINE)
SOURCES = {"Static Address": "static", "DHCP Address": "dhcp", "BIOS Assigned Address": "bios"}
# Set User Password: its bytes after the user number (IPMI 2.0, 22.30)
SET_PASSWORD, TEST_PASSWORD = 2, 3
LONG_PASSWORD = 0x80


@dataclass(frozen=True)
class Lan:
    """What a BMC's LAN channel is set to, as ipmitool shows it; source: static, dhcp, or ipmitool's words."""

    source: str
    address: str
    netmask: str
    gateway: str
    mac: str

    def __str__(self) -> str:
        return f"{self.address}, netmask {self.netmask}, gateway {self.gateway}, {self.source}"


class _Refused(Exception):
    """A command that ipmitool or the BMC didn't follow; the text says which and why, without secrets."""


@dataclass(frozen=True)
class BmcClient:
    """A BMC as ipmitool reaches it. via: ipmitool's words for another way than /dev/ipmi0."""

    via: tuple[str, ...] = ()
    apply_seconds: float = APPLY_SECONDS

    def apply(self, wanted: Bmc) -> str:
        """Make the BMC as the site says, and return a line for the screen.

        wanted.configure False only compares. Raises CornerstoneError (MACHINE) when the BMC isn't the one that the
        site names, differs, or can't be set; then it is as it was, or the message says what it is now.
        """
        lans = self.lans()
        channel = choose(lans, wanted)
        before = lans[channel]
        if not wanted.configure:
            return _compare(before, wanted)
        target = _target(wanted, before.mac)
        try:
            if before != target:
                self._set(channel, target)
                self._await(channel, target)
            if wanted.password:
                self._set_password(channel, wanted)
        except _Refused as error:
            raise self._put_back(channel, before, str(error)) from None
        return f"{wanted.address}, gateway {wanted.gateway}" + (", as it was" if before == target else "") \
            + (f"; password of {wanted.user} set" if wanted.password else "")

    def lans(self) -> dict[int, Lan]:
        """What each channel that is a LAN is set to, by its number. Raises CornerstoneError (MACHINE) without any."""
        found: dict[int, Lan] = {}
        why = "none of its channels is a LAN"
        try:
            # all in one call, for each takes its time; what a BMC hasn't it refuses
            told = self._run("exec", "/dev/stdin", given="".join(f"channel info {each}\n" for each in CHANNELS),
                             all_done=False)
            for number in (int(each, 16) for each in LAN_CHANNEL.findall(told)):
                found[number] = self._read(number)
        except _Refused as error:
            why = str(error)
        if not found:
            raise CornerstoneError(f"the BMC doesn't tell its LAN settings: {why}", "reset the BMC, or take ipmi_ip "
                                   "out of the site to leave it alone", Code.MACHINE)
        return found

    def _read(self, channel: int) -> Lan:
        told = _fields(self._run("lan", "print", str(channel)))
        source, *others = (told.get(name, "") for name in (
            "IP Address Source", "IP Address", "Subnet Mask", "Default Gateway IP", "MAC Address"))
        return Lan(SOURCES.get(source, source), *others)

    def _set(self, channel: int, lan: Lan) -> None:
        # the source first: with DHCP many a BMC refuses an address
        for words in (("ipsrc", lan.source), ("ipaddr", lan.address), ("netmask", lan.netmask),
                      ("defgw", "ipaddr", lan.gateway)):
            self._run("lan", "set", str(channel), *words)

    def _await(self, channel: int, wanted: Lan) -> None:
        end = time.monotonic() + self.apply_seconds
        # nothing tells when a BMC has applied a setting
        while (now := self._read(channel)) != wanted:
            if time.monotonic() >= end:
                raise _Refused(f"it was told {wanted}, and says {now}")
            time.sleep(POLL_SECONDS)

    def _put_back(self, channel: int, before: Lan, reason: str) -> CornerstoneError:
        """The error to raise; the BMC is as before afterwards, if it lets itself."""
        try:
            if before.source == "static":
                self._set(channel, before)
            else:
                # the addresses too: they show until the next lease
                self._set(channel, Lan("static", before.address, before.netmask, before.gateway, before.mac))
                self._run("lan", "set", str(channel), "ipsrc", before.source)
            now = self._read(channel)
            left = "it is as it was before" if now == before else f"it was {before} before, and is now {now}"
        except _Refused as error:
            left = f"it was {before} before, and couldn't be put back: {error}"
        return CornerstoneError(f"the BMC can't be set: {reason}; {left}",
                                "set it by hand and write ipmi_configure_now false, or reset the BMC and start again",
                                Code.MACHINE)

    def _set_password(self, channel: int, wanted: Bmc) -> None:
        rows = [row.split(",") for row in self._run("-c", "user", "list", str(channel)).splitlines()]
        accounts = {row[1]: int(row[0]) for row in rows if len(row) > 1 and row[1]
                    and re.fullmatch("[0-9]{1,2}", row[0])}
        if wanted.user not in accounts:
            raise _Refused(f"it has no account {wanted.user}, only {', '.join(accounts) or 'nameless ones'}")
        long = len(wanted.password) > 16
        data = wanted.password.encode("ascii").ljust(20 if long else 16, b"\0")
        for operation, what in ((SET_PASSWORD, "set"), (TEST_PASSWORD, "test")):
            words = ["raw", "0x06", "0x47", hex(accounts[wanted.user] | (LONG_PASSWORD if long else 0)),
                     hex(operation), *map(hex, data)]
            try:
                self._run("exec", "/dev/stdin", given=" ".join(words) + "\n")
            except _Refused:
                # ipmitool's own words may have the bytes
                raise _Refused(f"it doesn't take the password of {wanted.user} (at the step: {what})") from None

    def _run(self, *words: str, given: str = "", all_done: bool = True) -> str:
        """ipmitool's output; given is its standard input. Raises _Refused with its last line, with all_done."""
        done = command.run(["ipmitool", *self.via, *words], stdin=given, seconds=COMMAND_SECONDS)
        if not done.ended:
            raise _Refused(f"no answer to `{' '.join(words)}` in {COMMAND_SECONDS} s"
                           if done.code == command.TIMED_OUT else f"ipmitool can't be run: {done.said}")
        if done.code and all_done:
            lines = done.error.decode("utf-8", "replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
            raise _Refused(f"`{' '.join(words)}` failed: {last}")
        return done.text


def choose(lans: Mapping[int, Lan], wanted: Bmc) -> int:
    """The channel that a site means: by ipmi_mac, else the one that has its address, else the one that has any.

    Raises CornerstoneError (MACHINE), which lists them, when none or several are left.
    """
    listed = "".join(f"\n  channel {number}, MAC {lan.mac}: {lan}" for number, lan in lans.items())
    left = {number: lan for number, lan in lans.items() if not wanted.mac or lan.mac.lower() == wanted.mac}
    if not left:
        macs = " and ".join(lan.mac for lan in lans.values())
        raise CornerstoneError(f"the BMC has MAC {macs}, the site says ipmi_mac {wanted.mac}",
                               "this is another machine than the site means, or correct ipmi_mac", Code.MACHINE)
    for fits in (lambda lan: True, lambda lan: lan.address == str(wanted.address.ip),
                 lambda lan: lan.address not in UNSET):
        fitting = [number for number, lan in left.items() if fits(lan)]
        if len(fitting) == 1:
            return fitting[0]
    raise CornerstoneError(f"the BMC has {len(left)} LAN channels, and nothing says which one is in use:{listed}",
                           "write the MAC of the one that is connected into the site, as ipmi_mac", Code.MACHINE)


def _target(wanted: Bmc, mac: str) -> Lan:
    return Lan("static", str(wanted.address.ip), str(wanted.address.netmask), str(wanted.gateway), mac)


def _compare(lan: Lan, wanted: Bmc) -> str:
    # a /32: the site has no netmask, so it says nothing of one
    whole = wanted.address.network.prefixlen < 32
    there = f"{lan.address}/{lan.netmask}" if whole else lan.address
    if there != (wanted.address.with_netmask if whole else str(wanted.address.ip)):
        raise CornerstoneError(f"the BMC has {there}, the site says {wanted.address if whole else wanted.address.ip}, "
                               "and ipmi_configure_now is false", "correct one of the three", Code.MACHINE)
    return f"{IPv4Interface(there) if whole else there}, as the site says"


def _fields(text: str) -> dict[str, str]:
    """ipmitool's `Key   : value` lines."""
    lines = (line.partition(": ") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines if key.strip()}
