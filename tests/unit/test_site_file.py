"""Site files: what is read comes out as meant, and what is refused is refused with the text beside it, all at once."""

import base64
import copy
import json
import random
import re
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from cornerstone.lib.error import Code
from cornerstone.model.site.fields import (
    BLOCK,
    BOND,
    CLUSTER,
    CLUSTER_EXTRA,
    EXTRA,
    IPMI,
    NODE,
    NODE_EXTRA,
    SITE,
    SITE_EXTRA,
    schema,
)
from cornerstone.model.site.file import (
    REDACTED,
    SECRETS,
    SiteError,
    check_releases,
    has_secrets,
    read_site,
    redacted,
    to_json,
)
from cornerstone.model.site.site import Bmc, DiskChoice, Uplink

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path for path in (ROOT / "sites").glob("*.json") if path.name != "schema.json")
REFUSED = json.loads((ROOT / "tests" / "data" / "sites" / "refused.json").read_text())
THREE = json.loads((ROOT / "sites" / "lab-three-nodes.json").read_text())
SECRET = "BQXcnm+lvZAf6kv0vp85HOJxJeaue/rr8wEmvEUCoxU="
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g somebody"


def edited(edits: dict, document: dict = THREE) -> dict:
    """The document with values put at paths such as .blocks[0].nodes[1].cvm_ip; objects on the way are made."""
    document = copy.deepcopy(document)
    for path, value in edits.items():
        parts = [int(part[1:-1]) if part[0] == "[" else part[1:] for part in re.findall(r"\.[^.[]*|\[\d+\]", path)] \
            if "\x1b" not in path else [path[1:]]
        place = document
        for part in parts[:-1]:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        if isinstance(place, list) and parts[-1] == len(place):
            place.append(value)
        else:
            place[parts[-1]] = value
    return document


def read(edits: dict | None = None, document: dict = THREE):
    return read_site(json.dumps(edited(edits or {}, document)).encode(), "x.json")


def problems(edits: dict) -> list[str]:
    try:
        read(edits)
    except SiteError as error:
        assert error.code is Code.INPUT
        return [f"{problem}; {problem.hint}" for problem in error.problems]
    return []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_what_is_refused_says_where_why_and_how_to_mend_it(case):
    assert problems(case["edits"]) == case["problems"]
    assert case["problems"]


def test_the_examples_are_valid_and_hold_no_secret():
    assert len(EXAMPLES) >= 5
    for path in EXAMPLES:
        site = read_site(path.read_bytes(), path.name)
        assert not has_secrets(site), path
        assert {warning.path.rpartition(".")[2] for warning in site.warnings} == {"bootstrap_secret", "authorized_keys"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_normalised_text_means_the_same(path):
    site = read_site(path.read_bytes())
    again = read_site(to_json(site).encode())
    assert again == site
    assert to_json(again) == to_json(site)


def test_the_schema_file_is_the_code_s():
    assert (ROOT / "sites" / "schema.json").read_text() == json.dumps(schema(), indent=2) + "\n"


def test_one_node_reads_as_meant():
    site = read_site((ROOT / "sites" / "lab-one-node.json").read_bytes())
    (node,), (cluster,) = site.nodes, site.clusters
    assert (node.position, node.block_id, node.serial, node.hostname) == ("A", "LAB", "LAB-1", "lab-1")
    assert (node.hypervisor, node.cvm) == (IPv4Interface("10.20.0.11/24"), IPv4Interface("10.20.0.21/24"))
    bmc = Bmc(IPv4Interface("10.20.1.11/24"), IPv4Address("10.20.1.1"), "", True)
    assert (node.cvm_name, node.bmc, node.uplink, node.macs) == ("NTNX-LAB-A-CVM", bmc, Uplink(), ())
    assert (node.image, node.cvm_memory, node.cvm_vcpus) == (True, 4 << 30, 1)
    assert (node.boot_disk, node.data_disks) == (DiskChoice(serial="LAB-1-BOOT"), ())
    assert (node.passthrough, node.pci_addresses, node.erase_tokens) == ("auto", (), ())
    assert (cluster.name, cluster.redundancy_factor, cluster.form) == ("lab", 1, True)
    assert cluster.members == (IPv4Address("10.20.0.21"),)
    assert (cluster.address, cluster.data_services) == (None, IPv4Address("10.20.0.31"))
    assert (cluster.timezone, cluster.bootstrap_secret) == ("UTC", "")
    assert site.hypervisor_gateway == site.cvm_gateway == IPv4Address("10.20.0.1")
    assert site.cluster_of(node) is cluster


NODE_0 = ".blocks[0].nodes[0]"


@pytest.mark.parametrize(("edits", "what", "expected"), [
    ({".current_cvm_vlan_tag": 140}, "uplink", Uplink(vlan=140)),
    ({".current_cvm_vlan_tag": 140, f"{NODE_0}.current_cvm_vlan_tag": 0}, "uplink", Uplink()),
    ({".bond_mode": "dynamic"}, "uplink", Uplink(mode="balance-tcp", lacp="active")),
    ({".bond_mode": "dynamic", ".bond_lacp_rate": "fast", f"{NODE_0}.bond_uplinks":
      ["52-54-00-00-00-0A", "52:54:00:00:00:0B"]}, "uplink",
     Uplink(("52:54:00:00:00:0a", "52:54:00:00:00:0b"), "balance-tcp", "active", "fast")),
    ({f"{NODE_0}.bond_uplinks": ["52:54:00:00:00:0A"]}, "uplink", Uplink(("52:54:00:00:00:0a",))),
    ({".bond_mode": "dynamic", f"{NODE_0}.vswitches": [
        {"name": "br0", "uplinks": ["52:54:00:00:00:0a", "52:54:00:00:00:0b"], "bond_mode": "balance-slb", "mtu": 9000,
         "other_config": ["bond-detect-mode=miimon"]}]}, "uplink",
     Uplink(("52:54:00:00:00:0a", "52:54:00:00:00:0b"), "balance-slb", mtu=9000,
            options=(("bond-detect-mode", "miimon"),))),
    ({f"{NODE_0}.cvm_gb_ram": 24}, "cvm_memory", 24 << 30),
    ({f"{NODE_0}.cvm_gb_ram": None}, "cvm_memory", None),
    ({f"{NODE_0}.cvm_num_vcpus": 6}, "cvm_vcpus", 6),
    ({f"{NODE_0}.image_now": False}, "image", False),
    ({f"{NODE_0}.exlude_boot_serial": "S9"}, "never_boot", "S9"),
    ({f"{NODE_0}.ipmi_ip": "10.9.0.11", f"{NODE_0}.ipmi_configure_now": False}, "bmc",
     Bmc(IPv4Interface("10.9.0.11/32"), None, "", False)),
    ({f"{NODE_0}.ipmi_ip": "10.9.0.11", ".ipmi_netmask": "255.255.255.0", ".ipmi_gateway": "10.9.0.1",
      ".ipmi_user": "admin", ".ipmi_password": "a", f"{NODE_0}.ipmi_password": "b",
      f"{NODE_0}.ipmi_mac": "52:54:00:00:00:09"}, "bmc",
     Bmc(IPv4Interface("10.9.0.11/24"), IPv4Address("10.9.0.1"), "52:54:00:00:00:09", True, "admin", "b")),
    ({".cornerstone.data_disks": [{"model": "SSD*"}, {"min_gb": 1, "max_gb": 2, "wwn": "0x5000c500deadbeef"}]},
     "data_disks", (DiskChoice(model="SSD*"), DiskChoice(wwn="0x5000c500deadbeef", min_size=10**9, max_size=2*10**9))),
    ({".cornerstone.passthrough": "scsi"}, "passthrough", "scsi"),
    ({".cornerstone.passthrough": "scsi", f"{NODE_0}.cornerstone.passthrough": ["0000:3b:00.0"]}, "pci_addresses",
     ("0000:3b:00.0",)),
    ({f"{NODE_0}.cornerstone.passthrough": ["0000:3b:00.0"]}, "passthrough", "pci"),
    ({f"{NODE_0}.cornerstone.erase_tokens": {"S2": "tok-2", "S1": "tok-1"}}, "erase_tokens",
     (("S1", "tok-1"), ("S2", "tok-2"))),
    ({f"{NODE_0}.cornerstone.nic_macs": ["52:54:00:00:00:0A"]}, "macs", ("52:54:00:00:00:0a",)),
    ({".blocks[0].block_id": None}, "cvm_name", "NTNX-LAB-1-A-CVM"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_node_s_fields_have_their_effect(edits, what, expected):
    assert getattr(read(edits).nodes[0], what) == expected


CLUSTER_0 = ".clusters[0]"


@pytest.mark.parametrize(("edits", "what", "expected"), [
    ({f"{CLUSTER_0}.cluster_init_now": False}, "form", False),
    ({f"{CLUSTER_0}.cvm_ntp_servers": "a.example, 10.0.0.9"}, "cvm_ntp_servers", ("a.example", "10.0.0.9")),
    ({f"{CLUSTER_0}.hypervisor_ntp_servers": "a.example"}, "hypervisor_ntp_servers", ("a.example",)),
    ({f"{CLUSTER_0}.cvm_dns_servers": "10.0.0.9,10.0.0.8"}, "cvm_dns_servers",
     (IPv4Address("10.0.0.9"), IPv4Address("10.0.0.8"))),
    ({f"{CLUSTER_0}.timezone": "Europe/Berlin"}, "timezone", "Europe/Berlin"),
    ({f"{CLUSTER_0}.redundancy_factor": 3}, "redundancy_factor", 3),
    ({f"{CLUSTER_0}.single_node_cluster": False}, "members", tuple(map(IPv4Address, THREE["clusters"][0]
                                                                          ["cluster_members"]))),
    ({f"{CLUSTER_0}.cornerstone.bootstrap_secret": SECRET}, "bootstrap_secret", SECRET),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_cluster_s_fields_have_their_effect(edits, what, expected):
    assert getattr(read(edits).clusters[0], what) == expected


@pytest.mark.parametrize(("edits", "what", "expected"), [
    ({".hypervisor_nameserver": "10.0.0.9"}, "nameservers", (IPv4Address("10.0.0.9"),)),
    ({".cornerstone.authorized_keys": [SSH_KEY]}, "authorized_keys", (SSH_KEY,)),
    ({".cornerstone.webhook": "https://example.net:8443/hook?x=1"}, "webhook", "https://example.net:8443/hook?x=1"),
    ({".cornerstone.reinstall_token": "again-2026"}, "reinstall_token", "again-2026"),
    ({".nos_package": "nos-6.8.tar.gz"}, "aos_package", "nos-6.8.tar.gz"),
    ({".hypervisor_iso": {"kvm": {"filename": "ahv.iso", "checksum": None}}}, "ahv_image", "ahv.iso"),
    ({".clusters": []}, "clusters", ()),
], ids=lambda value: value if isinstance(value, str) else "")
def test_the_site_s_fields_have_their_effect(edits, what, expected):
    assert getattr(read(edits), what) == expected


TABLES = {"": SITE, ".blocks[0]": BLOCK, NODE_0: NODE, CLUSTER_0: CLUSTER}


@pytest.mark.parametrize(("path", "field"), [
    (f"{place}.{name}", field) for place, fields in TABLES.items() for name, field in fields.items()
    if field.status == "refused"], ids=lambda value: value if isinstance(value, str) else "")
def test_a_refused_field_is_refused_unless_it_asks_for_nothing(path, field):
    for value in (True, 1, "x", ["x"], {"x": 1}):
        assert problems({path: value}) == [f"{path}: is refused: {field.about.partition(': ')[2]}; delete it"]
    for nothing in (None, False, 0, "", [], {}):
        assert problems({path: nothing}) == []


def test_state_of_foundation_s_own_pages_is_told_and_left_out():
    site = read({".ui_skip_network_check": True, f"{NODE_0}.ui_x": 1, ".eos_metadata": {"email": "a@example.net"}})
    told = [str(warning) for warning in site.warnings]
    assert ".ui_skip_network_check: is state of Foundation's own pages and has no effect" in told
    assert f"{NODE_0}.ui_x: is state of Foundation's own pages and has no effect" in told
    assert ".eos_metadata: has no effect: it is bookkeeping of the site where the file was made" in told
    assert "ui_" not in to_json(site) and "eos" not in to_json(site)


def test_a_saved_configuration_is_read_too():
    assert read_site(json.dumps({"config": THREE}).encode()) == read()


def test_the_sdk_s_smallest_body_is_read():
    body = {"cvm_gateway": "10.0.0.1", "cvm_netmask": "255.255.255.0", "hypervisor_gateway": "10.0.0.1",
            "hypervisor_netmask": "255.255.255.0", "nos_package": None, "hypervisor_iso": {},
            "blocks": [{"block_id": "B", "nodes": [{"node_position": "A", "hypervisor_hostname": "h", "image_now": True,
                                                    "hypervisor_ip": "10.0.0.2", "cvm_ip": "10.0.0.3"}]}],
            "clusters": [{"cluster_name": "c", "redundancy_factor": 1, "cluster_members": ["10.0.0.3"],
                          "cluster_external_ip": None, "single_node_cluster": True}]}
    assert read_site(json.dumps(body).encode()).nodes[0].cvm_name == "NTNX-B-A-CVM"


@pytest.mark.parametrize(("content", "said"), [
    (b"", "the file: isn't JSON at line 1, column 1: Expecting value"),
    (b"{", "the file: isn't JSON at line 1, column 2: Expecting property name enclosed in double quotes"),
    (b'{"a": NaN}', "the file: can't be read: NaN isn't JSON"),
    (b"\xff\xfe{}", "the file: isn't UTF-8 text"),
    (b"[" * 200_000, "the file: is nested too deeply"),
    (b"7" * 5000, "the file: can't be read: "),
    (b"[]", "the file: a list isn't an object"),
    (b'"x"', "the file: 'x' isn't an object"),
    (b"null", "the file: null isn't an object"),
], ids=lambda value: repr(value[:12]))
def test_what_is_no_json_object_is_one_problem(content, said):
    with pytest.raises(SiteError) as caught:
        read_site(content)
    assert len(caught.value.problems) == 1
    assert str(caught.value.problems[0]).startswith(said)


def test_a_byte_order_mark_does_no_harm():
    assert read_site(b"\xef\xbb\xbf" + json.dumps(THREE).encode()) == read()


def test_a_key_written_twice_is_refused():
    with pytest.raises(SiteError) as caught:
        read_site(b'{"cvm_gateway": "10.0.0.1", ' + json.dumps(THREE).encode()[1:])
    assert [str(each) for each in caught.value.problems] == [".cvm_gateway: is written twice in one object"]


def test_the_whole_error_reads_well():
    with pytest.raises(SiteError) as caught:
        read({f"{NODE_0}.cvm_ip": "10.20.0.300", ".wifi": 1})
    assert str(caught.value) == """x.json: 2 problems
  .wifi: unknown key
      delete it; docs/site.md has the fields that are known
  .blocks[0].nodes[0].cvm_ip: '10.20.0.300' isn't an IPv4 address
      write four numbers with dots: 10.20.0.11
  hint: docs/site.md says what a site file holds"""


ALL_SECRETS = {
    ".cornerstone.webhook": "https://example.net/hook/s3cret-1", ".cornerstone.reinstall_token": "s3cret-token",
    f"{CLUSTER_0}.cornerstone.bootstrap_secret": SECRET, ".ipmi_user": "admin", ".ipmi_password": "s3cret-2",
    ".ipmi_netmask": "255.255.255.0", ".ipmi_gateway": "10.9.0.1", f"{NODE_0}.ipmi_ip": "10.9.0.11",
    f"{NODE_0}.ipmi_password": "s3cret-3",
}


def test_secrets_are_never_shown():
    site = read(ALL_SECRETS)
    shown = redacted(site) + repr(site) + str(site)
    assert "s3cret" not in shown and SECRET not in shown
    assert redacted(site).count(REDACTED) == 5
    assert has_secrets(site)
    assert {name for _, name in SECRETS} == {"webhook", "reinstall_token", "bootstrap_secret", "ipmi_password"}
    assert "s3cret-1" in to_json(site)


@pytest.mark.parametrize("path", [path for path in ALL_SECRETS if path.rpartition(".")[2] in dict(SECRETS).values()
                                  or path.endswith(("secret", "webhook", "token", "password"))])
@pytest.mark.parametrize("wrong", ["s3cret\n", " s3cret", "s3cret" * 200, {"x": "s3cret"}, ["s3cret"], "s3cret%"])
def test_a_secret_that_is_refused_is_not_told(path, wrong):
    said = "".join(problems({**ALL_SECRETS, path: wrong}))
    assert "s3cret" not in said
    assert said or path.endswith("password")


PACKAGE = "nutanix_installer_package-release-x-{}-stable.tar.gz"


@pytest.mark.parametrize(("package", "image", "wrong"), [
    ("", "", []),
    (PACKAGE.format("6.8"), "AHV-DVD-x86_64-el8.nutanix.20230302.100173.iso", []),
    ("nos-6.8.tar.gz", "AHV bundled with AOS (version 4.6+)", []),
    (PACKAGE.format("6.8.1"), "", [".nos_package"]), (PACKAGE.format("16.8"), "", [".nos_package"]),
    (PACKAGE.format("6.80"), "", [".nos_package"]), ("nos.tar.gz", "", [".nos_package"]),
    ("", "AHV-DVD-x86_64-el8.nutanix.20230302.101026.iso", [".hypervisor_iso.kvm.filename"]),
    ("5.11", "ahv.iso", [".nos_package", ".hypervisor_iso.kvm.filename"]),
])
def test_releases_that_the_file_names_are_the_iso_s(package, image, wrong):
    site = read({".nos_package": package, ".hypervisor_iso": {"kvm": {"filename": image}} if image else {}})
    try:
        check_releases(site, "6.8", "20230302.100173")
        found = []
    except SiteError as error:
        found = [problem.path for problem in error.problems]
    assert found == wrong


def test_every_known_field_of_foundation_is_decided():
    """The names that Foundation's public clients send."""
    node = """
        node_position hypervisor_hostname hypervisor_ip hypervisor cvm_ip ipmi_ip image_now cvm_gb_ram cvm_num_vcpus
        node_serial node_uuid cluster_id ipmi_user ipmi_password ipmi_netmask ipmi_gateway ipmi_mac ipmi_configure_now
        ipv6_address ipv6_interface current_network_interface device_hint current_cvm_vlan_tag bond_mode bond_lacp_rate
        bond_uplinks vswitches rdma_passthrough rdma_mac_addr image_delay exlude_boot_serial mitigate_low_boot_space
        image_successful ucsm_node_serial ucsm_managed_mode ucsm_params is_bare_metal is_selected compute_only
        hardware_attributes_override nos_version"""
    cluster = """cluster_name redundancy_factor cluster_members cluster_init_now cluster_external_ip cvm_ntp_servers
        cvm_dns_servers hypervisor_ntp_servers timezone single_node_cluster enable_ns backplane_subnet backplane_netmask
        backplane_vlan cluster_init_successful"""
    top = """cvm_gateway cvm_netmask hypervisor_gateway hypervisor_netmask nos_package blocks hypervisor_iso ipmi_user
        ipmi_password ipmi_netmask ipmi_gateway hypervisor_nameserver hypervisor_password skip_hypervisor
        rdma_passthrough bond_mode bond_lacp_rate current_cvm_vlan_tag clusters fc_settings eos_metadata tests
        svm_rescue_args install_script layout_egg_uuid hyperv_sku hyperv_product_key hyperv_external_vnic
        hyperv_external_vswitch unc_path unc_username unc_password xen_config_type ucsm_ip ucsm_user ucsm_password"""
    assert set(node.split()) | {EXTRA} == NODE.keys()
    assert set(cluster.split()) | {EXTRA} == CLUSTER.keys()
    assert set(top.split()) <= SITE.keys()
    assert BOND.keys() | IPMI.keys() <= NODE.keys() & SITE.keys()


def test_the_page_names_every_key_of_ours_and_every_example():
    page = (ROOT / "docs" / "site.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ") and "`" in line]
    ours = {"top": SITE_EXTRA, "node": NODE_EXTRA, "cluster": CLUSTER_EXTRA}
    told = {(place, re.sub("[` ]", "", name)) for places, name in rows for place in re.split("[, ]+", places.strip())
            if place in ours}
    assert told == {(place, name) for place, fields in ours.items() for name in fields}
    assert set(re.findall(r"\(\.\./sites/([a-z-]+\.json)\)", page)) == {p.name for p in EXAMPLES} | {"schema.json"}


def test_only_the_standard_library_is_imported():
    program = ("import sys; before = set(sys.modules)\n"
               "import cornerstone.model.site.file, cornerstone.model.contracts.site_area\n"
               "print(*{name.partition('.')[0] for name in sys.modules.keys() - before})")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(ROOT / 'src')!r}); "
                           + program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - sys.stdlib_module_names == {"cornerstone"}


def site_with_secret(secret: str) -> bytes:
    site = json.loads((ROOT / "sites/lab-one-node.json").read_bytes())
    site["clusters"][0]["cornerstone"] = {"bootstrap_secret": secret}
    return json.dumps(site).encode()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("secret", [
    # printf password12345678 | base64
    "cGFzc3dvcmQxMjM0NTY3OA==", b64(random.Random(1).randbytes(31)),
    b64(b"correct horse battery staple, and more of it\n"), b64("Straße Größe Käse Öl Übermut äöü ß ÄÖÜ".encode()),
    b64("a passphrase of thirty letters".encode("utf-16")), b64("a passphrase in thirty-two letters".encode("utf-32")),
    b64(random.Random(2).randbytes(32).hex().encode()), b64(bytes(64)), b64(bytes(range(64))),
    b64(bytes(range(0, 256, 5))), b64(bytes(range(255, 100, -3))), b64(random.Random(3).randbytes(8) * 8),
    "correcthorsebatterystaplecorrecthorsebattery", "CORRECTHORSEBATTERYSTAPLECORRECTHORSEBATTERY",
    "12345678901234567890123456789012345678901234", "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr",
])
def test_a23_a_secret_that_can_be_guessed_is_refused(secret):
    with pytest.raises(SiteError) as caught:
        read_site(site_with_secret(secret))
    [problem] = caught.value.problems
    assert problem.path == ".clusters[0].cornerstone.bootstrap_secret" and secret not in str(caught.value)
    assert "openssl rand -base64 32" in problem.hint


@pytest.mark.parametrize("size", [32, 33, 48, 64, 256])
def test_a23_a_secret_that_was_drawn_passes(size):
    chance = random.Random(size)
    for _ in range(50):
        secret = b64(chance.randbytes(size))
        assert read_site(site_with_secret(secret)).clusters[0].bootstrap_secret == secret
