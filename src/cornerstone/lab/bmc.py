"""An emulated BMC: OpenIPMI's ipmi_sim, on a loopback address of its own and as the BMC of a QEMU machine.

It keeps its LAN settings in files, one each, so that a test sees what was set and can choose what was there before.
Password tests (Set User Password, operation 3) always succeed on it: log in to see whether a password is set.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType

from cornerstone.lib.error import Code, CornerstoneError

LAN_PORT = 6230
VM_PORT = 6231
CHANNEL = 3
MAC = "02:00:5e:00:00:b3"
ACCOUNT = "lab-admin"
OTHER_ACCOUNT = "ADMIN"
END_SECONDS = 5.0
# what a BMC has from the factory
UNSET = {"ip_addr_src": "dhcp", "ip_addr": "0.0.0.0", "subnet_mask": "0.0.0.0",  # noqa: S104 (a value, no listener)
         "mac_addr": MAC, "default_gw_ip_addr": "0.0.0.0", "default_gw_mac_addr": "00:00:00:00:00:00",  # noqa: S104
         "backup_gw_ip_addr": "0.0.0.0", "backup_gw_mac_addr": "00:00:00:00:00:00"}  # noqa: S104

# ipmi_sim calls it with get, check or set, and the names (and values) of LAN settings. A line `name value`
# in the file refused is taken and not kept, as many a BMC does.
_KEEPER = """#!/bin/sh
cd "$1" || exit 1
verb=$2
shift 2
case $verb in
    get) for name; do echo "$name:$(cat "$name")"; done ;;
    set) while [ $# -gt 1 ]; do
            grep -qx "$1 $2" refused || printf %s "$2" >"$1"
            echo "$1 $2" >>changes
            shift 2
        done ;;
esac
"""
_LAN = """  startlan {channel}
    addr {address} {port}
    priv_limit admin
    allowed_auths_callback md5
    allowed_auths_user md5
    allowed_auths_operator md5
    allowed_auths_admin md5
    guid c0a51de5c0a51de5c0a51de5c0a51de5
    lan_config_program "{keeper} {settings}"
  endlan
"""
_REST = """  serial 15 {address} {vm_port} codec VM
  user 1 true "" "" user 10 md5
  user 2 true "{account}" "{password}" admin 10 md5
  user 3 true "{other}" "{password}" admin 10 md5
"""
_CONTROLLER = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
_numbers = itertools.count()


class EmulatedBmc:
    """Context manager: ipmi_sim runs from enter to exit. It ends with this process too: its standard input closes.

    folder: for its files, has to exist and be without spaces; password: of both accounts, at most 16 characters. more:
    further LAN channels than CHANNEL, each with settings of its own and a MAC that ends in its number.
    """

    def __init__(self, folder: Path, password: str, more: Sequence[int] = ()) -> None:
        self.folder = folder.absolute()
        self._more = tuple(more)
        # of 127.0.0.0/8, which is all this machine: four addresses for each process number, so that none is shared
        self.address = str(IPv4Address("127.0.0.0") + 4 * os.getpid() + next(_numbers) % 4)
        self._password = password
        self._process: subprocess.Popen[bytes]

    @property
    def qemu_arguments(self) -> tuple[str, ...]:
        """For Machine.extra: the BMC behind a KCS interface, which a guest has as /dev/ipmi0."""
        # reconnect, since QEMU then connects after all devices are made: QEMU 7.2 crashes when the line is there first
        return ("-chardev", f"socket,id=bmc-line,host={self.address},port={VM_PORT},reconnect=1",
                "-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc-line", "-device", "isa-ipmi-kcs,bmc=bmc0")

    def over_lan(self, password_file: Path, account: str = ACCOUNT) -> tuple[str, ...]:
        """The words by which ipmitool reaches it from this machine."""
        return ("-I", "lan", "-H", self.address, "-p", str(LAN_PORT), "-U", account, "-f", str(password_file))

    @property
    def settings(self) -> dict[str, str]:
        """All LAN settings."""
        return {name: self.setting(name) for name in UNSET}

    def setting(self, name: str, channel: int = CHANNEL) -> str:
        """A LAN setting by ipmi_sim's name, a key of UNSET."""
        return (self._settings(channel) / name).read_text()

    def changes(self, channel: int = CHANNEL) -> list[str]:
        """What was set, in order: name and value."""
        return (self._settings(channel) / "changes").read_text().splitlines()

    def refuse(self, *settings: str) -> None:
        """Don't keep these from now on; each is a name and a value with a space."""
        (self._settings() / "refused").write_text("".join(f"{each}\n" for each in settings))

    def put(self, channel: int = CHANNEL, **settings: str) -> None:
        """Make settings be there."""
        for name, value in settings.items():
            (self._settings(channel) / name).write_text(value)

    def _settings(self, channel: int = CHANNEL) -> Path:
        return self.folder / f"settings-{channel}"

    def _lan(self, channel: int, keeper: Path) -> str:
        port = LAN_PORT if channel == CHANNEL else VM_PORT + channel
        return _LAN.format(channel=channel, address=self.address, port=port, keeper=shlex.quote(str(keeper)),
                           settings=shlex.quote(str(self._settings(channel))))

    def __enter__(self) -> EmulatedBmc:
        if not shutil.which("ipmi_sim"):
            raise CornerstoneError("ipmi_sim isn't installed", "install the Debian package openipmi", Code.MACHINE)
        state, keeper = (self.folder / name for name in ("state", "keeper"))
        state.mkdir()
        for channel in (CHANNEL, *self._more):
            self._settings(channel).mkdir()
            mac = MAC if channel == CHANNEL else f"{MAC[:-2]}{channel:02x}"
            self.put(channel, **{**UNSET, "mac_addr": mac}, refused="", changes="")
        keeper.write_text(_KEEPER)
        keeper.chmod(0o700)
        lans = "".join(self._lan(channel, keeper) for channel in (CHANNEL, *self._more))
        rest = _REST.format(address=self.address, vm_port=VM_PORT, account=ACCOUNT, other=OTHER_ACCOUNT,
                            password=self._password)
        files = {"lan.conf": f'name "lab"\nset_working_mc 0x20\n{lans}{rest}', "controller": _CONTROLLER}
        for name, text in files.items():
            (self.folder / name).touch(0o600)
            (self.folder / name).write_text(text)
        self._process = subprocess.Popen(
            ["ipmi_sim", "-c", "lan.conf", "-f", "controller", "-s", "state"], cwd=self.folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = b""
        # its prompt comes when it listens
        while not said.endswith(b"> "):
            more = os.read(self._process.stdout.fileno(), 4096)
            if not more:
                self.__exit__(None, None, None)
                raise CornerstoneError(f"ipmi_sim ended: {said.decode(errors='replace').strip()}",
                                       f"is something else on {self.address}?", Code.MACHINE)
            said += more
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
