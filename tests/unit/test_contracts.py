"""Words that pass between rooms stand once, in model/contracts; what can't import them says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from build_plans import profile
from cornerstone.factory.payload import first_boot
from cornerstone.lib.event import PORT
from cornerstone.model.contracts import network, ports
from cornerstone.model.contracts.iscsi import INITIATOR_CREDENTIAL, INITIATOR_FILE
from cornerstone.model.contracts.node import (
    CVM_FILE,
    FIRST_BOOT_FILE,
    NODE_CREDENTIAL,
    NODE_FILE,
    SECRET_CREDENTIAL,
    SECRET_FILE,
)
from cornerstone.model.contracts.places import EVENTS_FILE, RUN, STATE

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/cornerstone"
STATIC = sorted(path for path in (ROOT / "elements").rglob("*") if path.is_file() and "/static/" in str(path))
# what is below STATE by its name there; first-boot is the folder of the steps' markers
STATE_FILES = {Path(name).name for name in (NODE_FILE, FIRST_BOOT_FILE, CVM_FILE, SECRET_FILE, INITIATOR_FILE)} | {
    "first-boot"}
INTERNAL = re.compile(re.escape(str(network.INTERNAL.network_address).removesuffix("0")) + r"\d+")
NUMBERS = {ports.OFFERS, ports.MEMBERSHIP, ports.ISCSI, ports.MONITOR, *ports.CEPH_DAEMONS[::768]}


def static(path: str) -> str:
    return (ROOT / "elements" / path).read_text(encoding="utf-8")


def test_the_host_listens_for_offers_where_the_cvm_makes_them():
    assert f"\nListenStream={network.HOST_INTERNAL}:{ports.OFFERS}\n" in static(
        "hypervisor/static/usr/lib/systemd/system/data-path.socket")


def test_multipath_prefers_the_host_s_own_cvm():
    assert f" preferredip={network.CVM_INTERNAL}\n" in static("hypervisor/static/etc/multipath.conf")


def test_the_cvm_s_cards_have_their_names():
    assert static("cvm/static/etc/issue.d/10-node.issue").strip().endswith(
        ", ".join(f"{card} \\4{{{card}}}" for card in (network.CVM_CARD, network.CVM_INTERNAL_CARD)))
    assert f"systemd-networkd-wait-online@{network.CVM_CARD}.service" in static(
        "cvm/static/usr/lib/systemd/system/genesis.service")


def test_first_boot_is_told_all_of_it():
    script = first_boot.script(profile())
    for line in (f"state=${{CORNERSTONE_STATE:-{STATE}}}", f"event_port={PORT}",
                 f"internal_bridge={network.INTERNAL_BRIDGE}",
                 f"internal_address={network.HOST_INTERNAL}/{network.INTERNAL.prefixlen}"):
        assert f"readonly {line}\n" in script
    assert f'"$state/{EVENTS_FILE}"' in script


@pytest.mark.parametrize("path", STATIC, ids=lambda path: path.name)
def test_a_static_file_names_what_there_is(path):
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        pytest.skip("not a text")
    known = {NODE_CREDENTIAL, INITIATOR_CREDENTIAL, SECRET_CREDENTIAL}
    assert set(re.findall(r"Credential=([\w.-]+)", text)) <= known
    assert set(re.findall(rf"{STATE}/([\w-]+(?:\.\w+)?)", text)) <= STATE_FILES
    assert set(INTERNAL.findall(text)) <= {str(network.HOST_INTERNAL), str(network.CVM_INTERNAL)}


@pytest.mark.parametrize("path", [path for path in [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.j2")]
                                  if "contracts" not in path.parts], ids=lambda path: str(path.relative_to(SOURCE)))
def test_an_address_a_port_or_a_folder_of_a_node_is_a_contract_s(path):
    text = path.read_text(encoding="utf-8")
    # what documents the code may say it in words
    code = re.sub(r'"""[\s\S]*?"""|#.*', "", text)
    assert INTERNAL.findall(code) == []
    assert [number for number in re.findall(r"(?<![\w.])\d{4}(?![\w.])", code) if int(number) in NUMBERS] == []
    words = (f"{STATE}", f"{RUN}/", f'"{NODE_CREDENTIAL}"', f'"{SECRET_CREDENTIAL}"', network.INTERNAL_BRIDGE)
    assert [word for word in words if word in code] == []
