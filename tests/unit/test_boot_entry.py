"""The node's entry in the UEFI boot menu, as efibootmgr shows it."""

import re

import pytest

from cornerstone.foundation.installer import boot_entry
from cornerstone.lib.error import CornerstoneError

# efibootmgr 17 and 18, which differ in what follows the label
SHOWN = """BootCurrent: 0002
Timeout: 0 seconds
BootOrder: 0007,0002,0000
Boot0000* UiApp
Boot0002* UEFI QEMU DVD-ROM QM00001 \tPciRoot(0x0)/Pci(0x1f,0x2)/Sata(0,65535,0){auto_created_boot_option}
Boot0007* Cornerstone node\tHD(2,GPT,5f2b,0x1000,0x80000)/File(\\EFI\\BOOT\\BOOTX64.EFI)
Boot000A  Cornerstone node
Boot000B* Cornerstone nodes of others\tHD(2)
Boot000C* Not a Cornerstone node\tHD(2)
"""


def test_our_own_entries_and_no_others():
    assert boot_entry._entries(SHOWN) == ["0007", "000A"]


def test_the_first_in_the_order_is_the_new_one():
    assert boot_entry.first_in_order(SHOWN) == "0007"


def test_a_firmware_without_an_order():
    with pytest.raises(CornerstoneError, match="no boot order"):
        boot_entry.first_in_order("BootCurrent: 0001\n")


@pytest.mark.parametrize("call", [boot_entry.register, boot_entry.start_next])
def test_a_bios_has_no_entries(call, tmp_path, monkeypatch):
    monkeypatch.setattr(boot_entry, "EFI", tmp_path / "efi")
    monkeypatch.setattr(boot_entry, "run", lambda *_: pytest.fail("nothing is run"))
    assert not call(tmp_path / "disk")


def test_m18_an_older_entry_goes_when_the_new_one_is_there(tmp_path, monkeypatch):
    said = []

    def run(words):
        said.append([str(word) for word in words][1:])
        return SHOWN.encode()
    (tmp_path / "efivars").mkdir()
    monkeypatch.setattr(boot_entry, "EFI", tmp_path)
    monkeypatch.setattr(boot_entry, "run", run)
    assert boot_entry.start_next(tmp_path / "sda")
    assert [words[0] for words in said] == ["--verbose", "--verbose", "--create", "--bootnum", "--bootnum",
                                            "--bootnext"]
    assert said[-1] == ["--bootnext", "0007"]
    assert said[2][:5] == ["--create", "--disk", str(tmp_path / "sda"), "--part", "2"]


def test_m18_when_the_firmware_has_no_room_the_older_entry_stays(tmp_path, monkeypatch):
    said = []

    def run(words):
        said.append(words[1])
        if words[1] == "--create":
            raise CornerstoneError("efibootmgr: No space left on device")
        return SHOWN.encode()
    monkeypatch.setattr(boot_entry, "EFI", tmp_path)
    monkeypatch.setattr(boot_entry, "run", run)
    with pytest.raises(CornerstoneError, match="No space left") as caught:
        boot_entry.start_next(tmp_path / "sda")
    assert said == ["--verbose", "--verbose", "--create"]
    assert caught.value.hint.startswith("take the medium out")


@pytest.fixture
def firmware(tmp_path, monkeypatch):
    """UEFI whose variables are files; what efibootmgr was told, and what it shows, in a list of one."""
    (tmp_path / "efivars").mkdir()
    said, shown = [], [SHOWN]

    def run(words):
        said.append([str(word) for word in words][1:])
        return shown[0].encode()
    monkeypatch.setattr(boot_entry, "EFI", tmp_path)
    monkeypatch.setattr(boot_entry, "run", run)
    return said, shown


def test_m19_firmware_that_starts_the_medium_again_is_asked_twice_and_then_a_person(firmware, monkeypatch, tmp_path):
    said, _ = firmware
    clock = [1_800_000_000.0]
    monkeypatch.setattr(boot_entry.time, "time", lambda: clock[0])
    for _ in range(2):
        assert boot_entry.start_next(tmp_path / "sda")
        clock[0] += 120
    said.clear()
    for _ in range(3):
        with pytest.raises(CornerstoneError, match="was asked 2 times to start .*sda, and starts this") as caught:
            boot_entry.start_next(tmp_path / "sda")
        assert caught.value.hint.startswith("take the medium out")
    assert said == [], "NVRAM isn't written for ever"
    clock[0] += 3600
    assert boot_entry.start_next(tmp_path / "sda"), "that was another time"


def test_m19_what_is_kept_is_a_uefi_variable(firmware, tmp_path):
    boot_entry.start_next(tmp_path / "sda")
    boot_entry.start_next(tmp_path / "sda")
    [variable] = (tmp_path / "efivars").iterdir()
    content = variable.read_bytes()
    assert content[:8] == b"\x07\0\0\0\x02\0\0\0" and len(content) == 16
    assert re.fullmatch(r"[A-Za-z]+-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", variable.name)


def test_m19_a_count_that_is_damaged_counts_for_nothing(firmware, tmp_path):
    (tmp_path / "efivars" / boot_entry.COUNT).write_bytes(b"x")
    assert boot_entry.start_next(tmp_path / "sda")


def test_m19_without_a_place_for_the_count_nothing_goes_round(firmware, tmp_path):
    (tmp_path / "efivars").rmdir()
    with pytest.raises(CornerstoneError, match="doesn't take it that .*sda is to start") as caught:
        boot_entry.start_next(tmp_path / "sda")
    assert caught.value.hint.startswith("take the medium out")


@pytest.mark.parametrize(("esp", "shown", "made"), [
    ("5f2b", SHOWN, False), ("5F2B", SHOWN, False), ("", SHOWN, True), ("5f2c", SHOWN, True), ("5f", SHOWN, True),
    ("5f2b", SHOWN.replace("BootOrder: 0007,0002", "BootOrder: 0002,0007"), True),
    ("5f2b", SHOWN.replace("Boot0007*", "Boot0007 "), True),
], ids=["its own", "in capitals", "unknown", "another disk's", "part of one", "not the first", "switched off"])
def test_m19_an_entry_that_is_right_is_not_written_again(firmware, tmp_path, esp, shown, made):
    said, shows = firmware
    shows[0] = shown
    boot_entry.start_next(tmp_path / "sda", esp)
    assert ("--create" in [words[0] for words in said]) == made
    assert said[-1][0] == "--bootnext"
