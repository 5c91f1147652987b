"""What Foundation's clients write is read: wishes have their effect, the rest is told, and one fault is one problem."""

import copy
import dataclasses
import json
import time
from pathlib import Path

import jsonschema
import pytest

from cornerstone.customize import customize
from cornerstone.foundation.installer.plan import make_plan
from cornerstone.foundation.installer.plan_text import lines
from cornerstone.model.contracts.facts import Facts
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, Entry, Manifest
from cornerstone.model.contracts.site_area import ROOM, SIZE, pack
from cornerstone.model.site.fields import CLUSTER, NODE, SITE, schema
from cornerstone.model.site.file import DRAWN, MOST, SiteError, read_site, size_in_iso, to_area, to_json
from cornerstone.model.site.kinds import MOST_TOLD
from small_iso import PROFILE
from test_site_file import CLUSTER_0, EXAMPLES, NODE_0, THREE, edited

ROOT = Path(__file__).resolve().parents[2]
ONE = json.loads((ROOT / "sites" / "lab-one-node.json").read_text())
NOTHING = (None, False, 0, "", [], {})
BMC = {f"{NODE_0}.ipmi_ip": "10.9.0.11", ".ipmi_netmask": "255.255.255.0", ".ipmi_gateway": "10.9.0.1"}


def read(edits, document=THREE):
    return read_site(json.dumps(edited(edits, document)).encode(), "x.json")


def problems(edits, document=THREE):
    with pytest.raises(SiteError) as caught:
        read(edits, document)
    return [str(problem) for problem in caught.value.problems]


def notes(edits, document=THREE):
    """What is told beyond what the document itself gives reason for."""
    before = {str(each) for each in read({}, document).warnings}
    return [str(each) for each in read(edits, document).warnings if str(each) not in before]


def test_the_body_of_foundation_s_pages_t19():
    assert notes({".hypervisor": "kvm", f"{NODE_0}.nos_version": "99.0", f"{NODE_0}.is_bare_metal": False}, ONE) == [
        f"{NODE_0}.nos_version: has no effect: it says what the node ran before; the ISO carries its own AOS"]
    (told,) = problems({".hypervisor": "esx"})
    assert told.startswith(".hypervisor: 'esx' is refused")


def test_defaults_of_the_ansible_module_t20():
    edits = {f"{NODE_0}.bond_uplinks": [], f"{NODE_0}.vswitches": [], f"{NODE_0}.exlude_boot_serial": False,
             f"{NODE_0}.ucsm_params": {"native_vlan": False, "mac_pool": ""}, ".tests": {"run_ncc": False}}
    site = read(edits)
    assert site == read({})
    assert problems({f"{NODE_0}.device_hint": "vm_installer"})[0].startswith(f"{NODE_0}.device_hint: is refused")


TABLES = {"": SITE, NODE_0: NODE, CLUSTER_0: CLUSTER}
MEANT = {"image_now", "is_selected", "ipmi_configure_now", "cluster_init_now"}  # false is a wish
VLAN = "current_cvm_vlan_tag"


@pytest.mark.parametrize(("path", "field"), [(f"{place}.{name}", field) for place, fields in TABLES.items()
                                             for name, field in fields.items() if not field.required],
                         ids=lambda value: value if isinstance(value, str) else "")
def test_empty_values_ask_for_nothing_in_every_field_t20(path, field):
    name = path.rpartition(".")[2]
    without = edited({path: None})
    expected = read_site(json.dumps(without).encode())
    for nothing in NOTHING:
        site = read({path: nothing})
        if not (name in MEANT and nothing in (False, 0)):
            assert (site.nodes, site.clusters) == (expected.nodes, expected.clusters), nothing


@pytest.mark.parametrize("place", ["", ".blocks[0]", NODE_0, CLUSTER_0, ".cornerstone", f"{NODE_0}.cornerstone"])
@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_empty_values_ask_for_nothing_in_unknown_fields_t20(place, nothing):
    edits = {f"{place}.novel": nothing}
    assert notes(edits) == [f"{place}.novel: is an unknown key, and asks for nothing"]
    assert problems({f"{place}.novel": [nothing, 1]}) == [f"{place}.novel: unknown key"]


@pytest.mark.parametrize("edits", [
    {f"{NODE_0}.ipv6_address": "fe80::1%eth0", f"{NODE_0}.ipv6_interface": "2"}, {f"{NODE_0}.cluster_id": 17},
    {f"{NODE_0}.cluster_id": "17"}, {f"{NODE_0}.node_uuid": "0c2f7a52"}, {f"{NODE_0}.image_successful": True},
    {f"{NODE_0}.image_delay": 30}, {f"{NODE_0}.model": "NX-3060-G5", f"{NODE_0}.configured": True},
    {f"{NODE_0}.foundation_version": "5.6", f"{NODE_0}.attributes": {"lcm_family": "x"}}, {".blocks[0].model": "NX"},
    {f"{CLUSTER_0}.cluster_init_successful": True}, {f"{CLUSTER_0}.backplane_vlan": 5}, {".hyperv_sku": "x"},
    {".unc_path": "//x"}, {".ucsm_user": "x"}, {".tests": {"run_ncc": True}}, {".eos_metadata": {"email": "a@b"}},
    {".fc_settings": {"foundation_central": False, "fc_metadata": {"fc_ip": "10.0.0.9", "api_key": "x"}}},
    {f"{NODE_0}.rdma_mac_addr": "52:54:00:00:00:01"}, {f"{NODE_0}.ui_any": 1}, {".ui_skip_network_check": True},
    {".hypervisor_iso": {"kvm": {"filename": "AHV bundled with AOS (version 4.6+)"}, "esx": {"filename": "x.iso"}}},
    {".bond_lacp_rate": "fast"}, {f"{NODE_0}.bond_lacp_rate": "fast"}, {".ipmi_user": "a", ".ipmi_password": "b"},
    {f"{NODE_0}.ipmi_mac": "52:54:00:00:00:09"},
    {f"{NODE_0}.ipmi_ip": "10.9.0.11", f"{NODE_0}.ipmi_configure_now": False, f"{NODE_0}.ipmi_user": "admin"},
    {f"{NODE_0}.bond_mode": "dynamic", f"{NODE_0}.vswitches": [{"name": "br0", "uplinks": ["52:54:00:00:00:01",
                                                                                         "52:54:00:00:00:02"]}]},
], ids=lambda edits: next(iter(edits)))
def test_what_describes_or_has_no_effect_is_told_t20(edits):
    told = notes(edits)
    assert told
    assert all("has no effect" in each for each in told)


@pytest.mark.parametrize("edits", [
    {f"{CLUSTER_0}.enable_ns": True}, {".skip_hypervisor": True}, {f"{NODE_0}.compute_only": True},
    {".fc_settings": {"foundation_central": True}}, {".hypervisor_iso": {"esx": {"filename": "x.iso"}}},
    {f"{NODE_0}.rdma_passthrough": True}, {".ucsm_ip": "10.0.0.1"}, {f"{NODE_0}.ucsm_managed_mode": True},
    {".install_script": "x"}, {".hypervisor_password": "x"}, {f"{NODE_0}.hypervisor": "phoenix"},
], ids=lambda edits: next(iter(edits)))
def test_wishes_that_cannot_be_met_are_refused_once_t20(edits):
    assert len(problems(edits)) == 1


def test_a_node_that_is_not_selected_is_left_alone_t20():
    site = read({f"{NODE_0}.is_selected": False})
    assert [node.image for node in site.nodes] == [False, True, True]
    assert any(str(each).startswith(f"{NODE_0}.is_selected: is false") for each in site.warnings)
    assert read_site(to_json(site).encode()).nodes == site.nodes
    assert read({f"{NODE_0}.image_now": 0}).nodes[0].image is False


CENTRAL = {
    "cluster_name": "c", "redundancy_factor": 2, "cluster_size": 3, "storage_node_count": 0, "timezone": "UTC",
    "aos_package_url": "http://10.0.0.9/nos.tar.gz", "aos_package_sha256sum": "0" * 64, "skip_cluster_creation": False,
    "common_network_settings": {"cvm_dns_servers": ["10.0.0.9"], "cvm_ntp_servers": ["10.0.0.9"]},
    "hypervisor_isos": [{"hypervisor_type": "kvm", "url": "http://10.0.0.9/ahv.iso"}],
    "nodes_list": [{"imaged_node_uuid": "x", "cvm_ip": "10.0.0.3", "hypervisor_ip": "10.0.0.2", "cvm_ram_gb": 32}]}


def test_a_body_of_foundation_central_is_one_problem_t21():
    with pytest.raises(SiteError) as caught:
        read_site(json.dumps(CENTRAL).encode())
    (told,) = caught.value.problems
    assert told.reason == "is of Foundation Central's format, which isn't read here"
    assert problems({".nos_package_url": "http://x", f"{NODE_0}.fc_imaged_node_uuid": "x"}) == [
        f".nos_package_url: {told.reason}"]


@pytest.mark.parametrize(("path", "hint"), [
    (".nos_package_name", "delete it"), (f"{NODE_0}.node_uuids", "delete it"), (f"{NODE_0}.image_later", "delete it"),
    (f"{NODE_0}.exclude_boot_serial", "did you mean exlude_boot_serial"), (".hypervisor_gatway", "did you mean "),
    (f"{NODE_0}.cvm_ram_gb", "did you mean cvm_gb_ram"), (f"{NODE_0}.rdma_passthru", "delete it"),
])
def test_no_suggestion_leads_astray_t21(path, hint):
    with pytest.raises(SiteError) as caught:
        read({path: "x"})
    (told,) = caught.value.problems
    assert told.hint.startswith(hint)


def test_what_is_done_to_a_bmc_is_said_before_t22():
    told = notes(BMC)
    assert told == [f"{NODE_0}.ipmi_ip: the BMC's address will be set to 10.9.0.11"]
    account = {".ipmi_user": "ADMIN", ".ipmi_password": "s3cret"}
    assert notes({**BMC, **account}) == [f"{told[0]}, and ADMIN's password"]
    for asked in (True, False):
        assert not any("will be set" in each for each in notes({**BMC, f"{NODE_0}.ipmi_configure_now": asked}))


@pytest.mark.parametrize(("edits", "path"), [
    ({**BMC, f"{NODE_0}.ipmi_ip": "10.xx.xx.xx", ".ipmi_user": "ADMIN", ".ipmi_password": "b",
      f"{NODE_0}.ipmi_mac": "52:54:00:00:00:09"}, f"{NODE_0}.ipmi_ip"),
    ({**BMC, ".ipmi_netmask": "255.255.255"}, ".ipmi_netmask"), ({**BMC, ".ipmi_gateway": "10.9.0"}, ".ipmi_gateway"),
    ({**BMC, ".ipmi_user": "ADMIN", ".ipmi_password": "x" * 21}, ".ipmi_password"),
    ({**BMC, ".ipmi_user": "x" * 17, ".ipmi_password": "x"}, ".ipmi_user"),
    ({f"{NODE_0}.node_serial": "none", ".blocks[0].block_id": None}, f"{NODE_0}.node_serial"),
    ({".bond_mode": "static", ".bond_lacp_rate": "fast"}, ".bond_mode"),
    ({f"{NODE_0}.cvm_ip": "10.20.0.xx"}, f"{NODE_0}.cvm_ip"), ({".cvm_gateway": "10.20.0.x"}, ".cvm_gateway"),
    ({".cvm_netmask": "255.255.0.0"}, ".cvm_netmask"), ({f"{CLUSTER_0}.cluster_members[0]": "x"}, CLUSTER_0),
    ({f"{NODE_0}.vswitches": [{"name": "br0", "uplinks": ["52:54:00:00:00:01"], "bond_mode": "balance", "lacp":
                               "active"}]}, f"{NODE_0}.vswitches[0].bond_mode"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_one_fault_makes_one_problem_t23(edits, path):
    told = problems(edits)
    assert len(told) == 1
    assert told[0].startswith(path)


def test_what_all_nodes_lack_is_one_problem_t23():
    edits = {f".blocks[0].nodes[{index}].ipmi_ip": f"10.9.0.1{index}" for index in range(3)}
    assert problems({**edits, ".ipmi_gateway": "10.9.0.1"}) == [".ipmi_netmask: is missing"]
    assert problems({**edits, ".ipmi_gateway": "10.8.0.1", ".ipmi_netmask": "255.255.255.0"}) == [
        ".ipmi_gateway: 10.8.0.1 isn't in 10.9.0.0/24"]


@pytest.mark.parametrize("zone", ["x" * 300, "Europe/" + "y" * 250, "Nowhere"])
def test_a_time_zone_of_any_length_is_no_time_zone_t31(zone):
    assert len(problems({f"{CLUSTER_0}.timezone": zone})) == 1


HOSTILE = {
    "empty nodes": {"nodes": [{}] * 80_000}, "unknown keys": {f"key{index}": 1 for index in range(20_000)},
    "empty blocks": {**THREE, "blocks": [{}] * 80_000},
    "the same member": {**THREE, "clusters": [{**THREE["clusters"][0], "cluster_members": ["10.20.0.21"] * 19_000}]},
    "members": {**THREE, "clusters": [{**THREE["clusters"][0], "cluster_members": [
        f"10.20.{index >> 8}.{index & 255}" for index in range(15_000)]}]},
    "blocks of nodes": {**THREE, "blocks": [{"nodes": [{}] * 64}] * 256}, "a long key": {"x" * 250_000: 1},
    "ui": {f"ui_{index}": 1 for index in range(18_000)}, "a long text": {**THREE, "nos_package": "x" * 250_000},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_told_soon_and_shortly_t32(name):
    content = json.dumps(HOSTILE[name], separators=(",", ":")).encode()
    assert len(content) <= MOST
    begun = time.process_time()
    with pytest.raises(SiteError) as caught:
        read_site(content)
    assert time.process_time() - begun < 5
    assert len(caught.value.problems) <= MOST_TOLD
    assert len(str(caught.value)) < MOST_TOLD * 1500


def test_at_most_fifty_problems_are_told_and_the_others_counted_t32():
    with pytest.raises(SiteError) as caught:
        read_site(json.dumps({**THREE, **{f"key{index}": 1 for index in range(1795)}}).encode(), "x.json")
    assert len(caught.value.problems) == MOST_TOLD
    assert caught.value.message.startswith("x.json: 1,795 problems\n")
    assert caught.value.message.endswith("\n  … and 1,745 more")


def test_the_size_is_looked_at_before_anything_t32(tmp_path):
    path = tmp_path / "site.json"
    path.write_bytes(b"[" * (3 << 20))
    begun = time.process_time()
    with pytest.raises(SiteError, match=f"has {MOST + 1} bytes, and at most {MOST} are read"):
        read_site(customize.read_file(path))
    assert time.process_time() - begun < 1


def large(nodes: int, padding: int = 0) -> bytes:
    document = copy.deepcopy(THREE)
    document["clusters"] = []
    node = dict(document["blocks"][0]["nodes"][0])
    made = [node | {"node_position": f"{index % 60}", "hypervisor_hostname": f"host-{index}",
                    "node_serial": f"S{index}", "hypervisor_ip": f"10.20.{index // 100}.{index % 100 + 2}",
                    "cvm_ip": f"10.20.{128 + index // 100}.{index % 100 + 2}",
                    "cornerstone": {"boot_disk": {"model": "x" * 64}, "data_disks": [{"model": f"y{n:060}"} for n in
                                                                                    range(padding)]}}
            for index in range(nodes)]
    document["blocks"] = [{"block_id": f"B{at}", "nodes": made[at:at + 60]} for at in range(0, nodes, 60)]
    document |= {"cvm_netmask": "255.255.0.0", "hypervisor_netmask": "255.255.0.0"}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def test_what_is_valid_fits_an_iso_t36():
    content = next(each for each in (large(nodes, 2) for nodes in range(660, 400, -1)) if len(each) <= ROOM)
    assert len(content) > ROOM - 1000
    site = read_site(content)
    assert len(to_json(site)) > SIZE
    assert size_in_iso(site) <= ROOM
    assert len(pack(to_area(site))) == SIZE
    with pytest.raises(SiteError, match="are read"):
        read_site(content + b" " * SIZE)


def test_a_secret_that_is_drawn_still_fits_t36():
    document = json.loads(large(480, 2))
    document["clusters"] = [{"cluster_name": "c", "redundancy_factor": 1, "cluster_members": ["10.20.128.2"]}]
    document = read_site(json.dumps(document, separators=(",", ":")).encode()).document
    models = [node["cornerstone"]["boot_disk"] for block in document["blocks"] for node in block["nodes"]]

    def sized(size: int) -> bytes:
        """The document with so many bytes, made larger by texts."""
        for model in models:
            model["wwn"] = "w" * 8
        left = size - len(json.dumps(document, separators=(",", ":")))
        for model in models:
            model["wwn"] = "w" * (8 + max(0, min(120, left)))
            left -= len(model["wwn"]) - 8
        return json.dumps(document, separators=(",", ":")).encode()

    site = read_site(sized(ROOM - DRAWN))
    _, drawn = customize.with_bootstrap_secrets(site)
    assert len(to_area(drawn)) == size_in_iso(site) == ROOM
    assert len(pack(to_area(drawn))) == SIZE
    with pytest.raises(SiteError, match=f"has {ROOM + 1} bytes as an ISO holds it"):
        read_site(sized(ROOM - DRAWN + 1))


@pytest.mark.parametrize("url", [
    "http://[::1/", "http://host:99999/", "http://host:0/", "http://host:/", "http://[zz::1]/", "http://[fe80::1%25e]/",
    "http://10.0.0.300/", "http://1/", "http://a..b/", "http://-a/", f"http://{'a' * 64}/", f"http://{'a.' * 127}bb/",
    "http://user@host/", "http://hö/", "http://host/ä", "http://host/a b", "ftp://host/", "http:///", "http://host/\x7f",
])
def test_a_webhook_address_that_cannot_be_used_is_refused_t35(url):
    (told,) = problems({".cornerstone.webhook": url})
    assert told.startswith(".cornerstone.webhook: the value ")
    assert url not in told


@pytest.mark.parametrize("url", ["http://[::1]:8080/x", "https://example.net/hook?x=1", "http://my_host", "http://h.:80/",
                                 "http://10.0.0.9:65535/"])
def test_a_webhook_address_that_can_be_used_t35(url):
    assert read({".cornerstone.webhook": url}).webhook == url


SCHEMA = jsonschema.Draft202012Validator(schema())


def test_the_schema_takes_what_the_reader_takes_t54():
    for path in EXAMPLES:
        document = json.loads(path.read_text())
        SCHEMA.validate(document)
        SCHEMA.validate({"config": document})
    for edits in ({".hypervisor": "kvm", f"{NODE_0}.nos_version": "9"}, {f"{NODE_0}.bond_uplinks": []},
                  {f"{NODE_0}.exlude_boot_serial": False}, {".novel": {"x": [None]}}, {".cornerstone": {}}):
        SCHEMA.validate(edited(edits))
        read(edits)
    for wrong in ({"config": THREE, "x": 1}, {"config": {}}, {}, edited({".novel": 1})):
        assert not SCHEMA.is_valid(wrong)


@pytest.mark.parametrize(("edits", "said"), [
    ({}, "its address is set to 10.20.1.11/24, gateway 10.20.1.1"),
    ({".ipmi_user": "ADMIN", ".ipmi_password": "s3cret"},
     "its address is set to 10.20.1.11/24, gateway 10.20.1.1; ADMIN's password is set"),
    ({f"{NODE_0}.ipmi_configure_now": False}, "its address is compared with 10.20.1.11, and nothing is set"),
], ids=["address", "password", "nothing"])
def test_the_plan_says_what_is_done_to_a_bmc_t22(edits, said):
    facts = Facts.load(ROOT / "tests" / "machines" / "qemu-bios.json")
    facts = dataclasses.replace(facts, dmi=dataclasses.replace(facts.dmi, serial="LAB-1", chassis_serial=""))
    profile = PROFILE | {"inherits": []}
    manifest = Manifest("1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11", profile, "development", 1,
                        (Entry(HYPERVISOR, 1, "a" * 64), Entry(CVM, 1, "b" * 64)), 4096)
    told = lines(make_plan(facts, read(edits, ONE), manifest))
    assert f"BMC        {said}" in told
    assert not any("s3cret" in line for line in told)
