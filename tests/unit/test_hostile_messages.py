"""JSON from peers, foreign disks and daemons: each reader takes any of it for an error of its own, never for an answer.

Which modules read JSON by other means is a list with reasons.
"""

from __future__ import annotations

import ast
import contextlib
import http.server
import importlib
import json
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from cluster_nodes import addresses
from cornerstone.cvm import disks
from cornerstone.cvm.ceph import cluster, osd
from cornerstone.cvm.iscsi_target.catalogue import Catalogue
from cornerstone.cvm.membership import client, kept
from cornerstone.foundation.installer.discover import contents
from cornerstone.hypervisor.bootstrap_secret import is_member
from cornerstone.lab import qmp
from cornerstone.lab.access import with_key
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import MOST
from cornerstone.model.contracts.node import NODE_FILE

SRC = Path(__file__).resolve().parents[2] / "src" / "cornerstone"
# no object in JSON, in each way that one reader or another has taken for one
HOSTILE = {
    "lists in one another": b"[" * 30_000 + b"]" * 30_000,
    "objects in one another": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a number without end": b'{"a": ' + b"9" * 5000 + b"}",
    "a number that is infinite": b'{"a": 1e999}',
    "a number that is none": b'{"a": NaN}',
    "a key twice": b'{"a": 1, "a": 2}',
    "another encoding": b'{"a": "M\xfcller"}',
    "a list": b"[]", "a text": b'"x"', "a number": b"3", "nothing": b"null", "no JSON": b"{", "no text": b"\0\xff"}
# Ceph may well list something twice, and a list is an answer of some commands
OF_CEPH = {name: content for name, content in HOSTILE.items()
           if name not in ("a list", "a text", "a number", "nothing", "a key twice")}

every = pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)


@every
def test_an_answer_of_a_member_t28(content):
    for status in (200, 403, 409):
        with pytest.raises(ValueError):
            client._understood("10.20.0.22", status, content)


def test_another_cluster_s_osds_are_a_list_or_none_t28():
    with pytest.raises(client.NotYet) as refusal:
        client._understood("10.20.0.22", 409, b'{"error": "not yet", "osds": 5}')
    assert refusal.value.osds == ()


@pytest.mark.parametrize("version", [0, "1", None])
def test_an_answer_whose_version_is_none_is_a_refusal(version):
    with pytest.raises(client.Refused, match="what 10.20.0.22 answers"):
        client._understood("10.20.0.22", 200, json.dumps({"version": version, "state": {}}).encode())


@every
def test_membership_json_t28(content):
    with pytest.raises(CornerstoneError, match=r"x is damaged"):
        kept.Membership.from_json(content, "x")


@pytest.mark.parametrize("content", [content for content in HOSTILE.values() if content != b"[]"])
def test_the_list_of_foreign_osds_t28(tmp_path, content):
    (tmp_path / kept.OSDS).write_bytes(content)
    with pytest.raises(CornerstoneError, match="is damaged"):
        kept.load_osds(tmp_path)


@every
def test_the_catalogue_of_volumes_t28(content):
    with pytest.raises(CornerstoneError):
        Catalogue.from_json(content)


@pytest.mark.parametrize("content", OF_CEPH.values(), ids=OF_CEPH)
def test_an_answer_of_ceph_t28(content):
    with pytest.raises(CornerstoneError, match="^ceph df: what it answers"):
        cluster.parsed("df", content)


@every
def test_a_line_of_qmp_t28(content):
    with pytest.raises(CornerstoneError, match="what QEMU says by QMP"):
        qmp.message(content.replace(b"\n", b"") + b"\n")


def test_a_site_s_key_is_added_by_the_same_reader_t28():
    with pytest.raises(ValueError, match="nested too deeply"):
        with_key(HOSTILE["lists in one another"], "ssh-ed25519 A")


@contextlib.contextmanager
def page(content: bytes):
    """The address of a CVM whose page is this."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    address = addresses(1)[0]
    server = http.server.HTTPServer((address, 2100), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("content", [*HOSTILE.values(), b'{"member": false, "member": true}', b'{"member": 1}'])
def test_the_cvm_s_page_for_its_host_t28(content):
    with page(content) as address:
        assert is_member(address, "lo") is False


@pytest.mark.parametrize("content", [*HOSTILE.values(), b'{"state": null, "state": "UP"}'])
def test_the_word_of_an_osd_t28(tmp_path, monkeypatch, content):
    monkeypatch.setattr(osd, "SOCKETS", tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ceph-osd.3.asok"))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.recv(100)
                peer.sendall(len(content).to_bytes(4, "big") + content)
        thread = threading.Thread(target=answer)
        thread.start()
        assert osd.state(3) == "starting"
        thread.join()


def ext4(folder: Path, node: bytes) -> Path:
    """An image of a state partition whose node.json is this."""
    tree = folder / "tree"
    (tree / NODE_FILE).parent.mkdir(parents=True)
    (tree / NODE_FILE).write_bytes(node)
    image = folder / "state"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image], check=True)
    return image


@pytest.mark.parametrize("name", ["lists in one another", "a key twice", "a number without end", "a list",
                                  "another encoding"])
def test_a_foreign_disk_s_node_json_t28(tmp_path, name):
    assert contents.installed(ext4(tmp_path, HOSTILE[name])) is None


def test_a_foreign_disk_s_node_json_of_any_size_is_read_to_a_bound_t28(tmp_path, monkeypatch):
    real, ended = contents.command.run, []
    with monkeypatch.context() as patch:
        (tmp_path / "debugfs").write_text(f"#!/bin/sh\nexec head -c {8 * MOST} /dev/zero\n")
        (tmp_path / "debugfs").chmod(0o755)
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        patch.setattr(contents.command, "run", lambda *words, **more: ended.append(real(*words, **more)) or ended[-1])
        assert contents.installed(tmp_path / "state") is None
    assert [len(done.out) for done in ended] == [MOST + 1]
    good = b'{"hypervisor": {"hostname": "n1"}, "serial": "S1"}'
    assert contents.installed(ext4(tmp_path, good)).hostname == "n1"


@pytest.fixture
def wipefs(tmp_path, monkeypatch):
    """Have a wipefs that prints what is in the file that this returns."""
    (tool := tmp_path / "bin" / "wipefs").parent.mkdir()
    tool.write_text(f"#!/bin/sh\nexec cat {tmp_path / 'said'}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return tmp_path / "said"


@pytest.mark.parametrize("content", [
    *(content for name, content in HOSTILE.items() if name != "another encoding"),
    b'{"signatures": [[]]}', b'{"signatures": [{"type": {}}]}', b'{"signatures": 5}', b'{"signatures": [{"type": 5}]}'])
def test_what_wipefs_prints_t28(wipefs, tmp_path, content):
    wipefs.write_bytes(content)
    device = tmp_path / "sda"
    assert contents.signatures([device]) is None
    # for the CVM a disk of which nothing is known holds data
    assert isinstance(disks._contents(device, b"x", ""), str)


@pytest.fixture
def fences(monkeypatch):
    """The module fences, with a rados that only has names."""
    rados = types.SimpleNamespace(Error=Exception, ObjectNotFound=KeyError, Ioctx=object, Rados=object)
    store = types.SimpleNamespace(Store=object)
    monkeypatch.setitem(sys.modules, "rados", rados)
    monkeypatch.setitem(sys.modules, "cornerstone.cvm.iscsi_target.store", store)
    name = "cornerstone.cvm.iscsi_target.fences"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


@every
def test_records_of_clients_t28(fences, content):
    with pytest.raises(CornerstoneError):
        fences.kept_client("image 10.20.0.31:0/7", content)


def test_records_of_clients_of_a_later_release_are_understood_t28(fences):
    found = fences.kept_client("image 10.20.0.31:0/7", b'{"machine": "m", "boot": "b", "kernel": "9.1"}')
    assert (found.image, found.address, found.machine, found.boot) == ("image", "10.20.0.31:0/7", "m", "b")
    with pytest.raises(CornerstoneError, match="is no image and address"):
        fences.kept_client("image", b'{"machine": "m", "boot": "b"}')


# Who reads JSON without model/json_text, and why nobody from outside writes what they read.
OTHERWISE = {
    "lib/json_text.py": "the reader itself",
    "lib/event.py": "as strict, and refuses in terms of an event: one key once, bounded depth, finite numbers",
    "model/site/file.py": "copies a document that was read, by its own text",
    "customize/customize.py": "copies a document that was read, by its own text",
    "lab/guest.py": "a program for the guest, which reads what the lab itself has written",
    "foundation/installer/live_network.py": "ip(8) of the running medium about this kernel's own cards",
    "factory/inspection/roots.py": "sfdisk about a disk that this build has made",
    "factory/contained.py": "losetup about this machine's own loop devices",
    "factory/verify/boot_checks.py": "sfdisk about an ISO that was verified before",
    "factory/store/layers.py": "a record of the build's own store; whatever it raises makes the layer anew",
    "factory/build/unchanged.py": "a note that the last build wrote; whatever it raises has everything looked at",
    "factory/build/reproduce.py": "records of the two stores that it has just filled itself",
    "factory/bench/bench.py": "events of the build that the benchmark has just run",
    "factory/bench/mastering.py": "the manifest and the job that the benchmark has just made",
}


def test_json_is_read_by_one_reader_or_there_is_a_reason_t28():
    found = {str(path.relative_to(SRC)) for path in SRC.rglob("*.py") if any(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "json"
        and node.attr in ("load", "loads", "JSONDecoder") for node in ast.walk(ast.parse(path.read_text())))}
    # a program in a text
    found |= {str(path.relative_to(SRC)) for path in SRC.rglob("*.py") if "\nwords = json.load(" in path.read_text()}
    assert found == set(OTHERWISE)
