"""The node's entry in the UEFI boot menu, as efibootmgr shows it."""

import pytest

from cornerstone.foundation import boot_entry
from cornerstone.model.error import CornerstoneError

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
    monkeypatch.setattr(boot_entry, "EFI", tmp_path)
    monkeypatch.setattr(boot_entry, "run", run)
    assert boot_entry.start_next(tmp_path / "sda")
    assert [words[0] for words in said] == ["--verbose", "--create", "--bootnum", "--bootnum", "--bootnext"]
    assert said[-1] == ["--bootnext", "0007"]
    assert said[1][:5] == ["--create", "--disk", str(tmp_path / "sda"), "--part", "2"]


def test_m18_when_the_firmware_has_no_room_the_older_entry_stays(tmp_path, monkeypatch):
    said = []

    def run(words):
        said.append(words[1])
        if words[1] == "--create":
            raise CornerstoneError("efibootmgr: No space left on device")
        return SHOWN.encode()
    monkeypatch.setattr(boot_entry, "EFI", tmp_path)
    monkeypatch.setattr(boot_entry, "run", run)
    with pytest.raises(CornerstoneError, match="No space left"):
        boot_entry.start_next(tmp_path / "sda")
    assert said == ["--verbose", "--create"]
