"""`invoke site.new` and `invoke site.check`: valid files for their owner alone, and one error otherwise."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.customize.site_new import QUESTIONS, new_site
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.site.file import read_site

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g me"
THREE = {"cluster": "Lab", "gateway": "10.20.0.1/24", "hypervisors": "10.20.0.11, 10.20.0.12,10.20.0.13",
         "cvms": "10.20.0.21,10.20.0.22,10.20.0.23", "serials": "S1,S2,S3"}


def call(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "tasks.py", f"site.{words[0]}", *words[1:]], cwd=ROOT, text=True,
                          check=False, stdin=subprocess.DEVNULL, capture_output=True, **more)


def flags(given: dict[str, str]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def test_flags_alone_make_a_valid_file_for_its_owner(tmp_path):
    (tmp_path / "id.pub").write_text(f"{KEY}\n")
    path = tmp_path / "site.json"
    given = {**THREE, "ssh_key": str(tmp_path / "id.pub"), "address": "10.20.0.30", "data_services": "10.20.0.31",
             "dns": "10.20.0.53", "ntp": "ntp.example.net,10.20.0.54"}
    done = call("new", str(path), *flags(given))
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {"id.pub", path.name}
    site = read_site(path.read_bytes())
    assert site.warnings == () and site.authorized_keys == (KEY,)
    assert [str(node) for node in site.nodes] == [
        "lab-1 (position A, serial S1)", "lab-2 (position B, serial S2)", "lab-3 (position C, serial S3)"]
    cluster, = site.clusters
    assert (cluster.redundancy_factor, str(cluster.address), str(cluster.data_services)) == (2, "10.20.0.30",
                                                                                            "10.20.0.31")
    assert cluster.cvm_ntp_servers == cluster.hypervisor_ntp_servers == ("ntp.example.net", "10.20.0.54")
    assert cluster.bootstrap_secret and cluster.bootstrap_secret not in done.stdout
    assert "lab-3 (position C, serial S3): hypervisor 10.20.0.13/24, CVM 10.20.0.23/24" in done.stdout


def test_the_page_s_own_command_works(tmp_path):
    line = next(line for line in (ROOT / "docs" / "site.md").read_text().splitlines()
                if line.startswith("./invoke site.new "))
    _, _, name, *words = line.split()
    assert call("new", str(tmp_path / name), *words).returncode == 0
    assert read_site((tmp_path / name).read_bytes()).nodes[0].hostname == "lab-1"


def test_five_nodes_are_two_blocks(tmp_path):
    given = {**THREE, "hypervisors": ",".join(f"10.20.0.1{n}" for n in range(5)),
             "cvms": ",".join(f"10.20.0.2{n}" for n in range(5)), "serials": "S1,S2,S3,S4,S5"}
    site = new_site(tmp_path / "x.json", given, None)
    assert [len(block.nodes) for block in site.blocks] == [4, 1]


def test_every_question_is_a_flag():
    said = call("new", "--help").stdout
    assert [each.flag for each in QUESTIONS if each.flag not in said] == []


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    path = tmp_path / "site.json"
    path.write_text("mine")
    path.chmod(0o644)
    done = call("new", str(path), *flags(THREE))
    assert done.returncode == Code.INPUT and f"error: {path} is there already" in done.stderr
    assert path.read_text() == "mine"
    assert call("new", str(path), "--force", *flags(THREE)).returncode == 0
    assert read_site(path.read_bytes()) and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("change", "said"), [
    ({"cluster": ""}, "a site needs --cluster"),
    ({"cluster": "", "serials": ""}, "a site needs --cluster, --serials"),
    ({"gateway": "10.20.0.1/40"}, "--gateway: 10.20.0.1/40 isn't an address with its prefix length"),
    ({"gateway": "gateway"}, "--gateway: gateway isn't an address with its prefix length"),
    ({"serials": "S1,S2"}, "there are 3 hypervisors, 3 CVMs and 2 serials"),
    ({"serials": "S1,S2,S2"}, "--serials: S2 is --serials's already"),
    ({"cvms": "10.20.0.21,10.20.0.22,10.20.0.11"}, "--cvms: 10.20.0.11 is --hypervisors's already"),
    ({"gateway": "10.20.0.1"}, "--gateway: give the prefix length"),
    ({"cluster": "my lab"}, "--cluster: 'my lab' doesn't fit"),
    ({"ssh_key": "/no/such.pub"}, "--ssh-key: /no/such.pub can't be read: No such file"),
    ({"ssh_key": str(ROOT / "README.md")}, "--ssh-key: the value isn't an OpenSSH public key without options"),
])
def test_answers_that_make_no_valid_site_write_nothing(tmp_path, change, said):
    with pytest.raises(CornerstoneError) as caught:
        new_site(tmp_path / "x.json", {**THREE, **change}, None)
    assert said in str(caught.value) and caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_asked_for_on_a_terminal(tmp_path):
    path = tmp_path / "site.json"
    asker, terminal = pty.openpty()
    given = {name: value for name, value in THREE.items() if name != "serials"}
    with subprocess.Popen([sys.executable, "tasks.py", "site.new", str(path), *flags(given)], cwd=ROOT,
                          stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        os.close(terminal)
        os.write(asker, b"\nS1,S2,S3\n\n10.20.0.30\n\n\n\n")
        said, _ = running.communicate(timeout=60)
    os.close(asker)
    assert running.returncode == 0, said
    assert said.count("Serial numbers of the machines") == 2, "asked again after an empty answer"
    assert "Name of the cluster" not in said
    site = read_site(path.read_bytes())
    assert site.nodes[2].serial == "S3" and str(site.clusters[0].address) == "10.20.0.30"


@pytest.mark.parametrize(("change", "said"), [
    ({"gateway": "10.20.0.1"}, "--gateway: give the prefix length"),
    ({"hypervisors": "10.20.0.11,10.20.0.12,10.20.0.1x"}, "--hypervisors: "),
    ({"cvms": "10.20.0.21,10.20.0.22,10.21.0.23"}, "--cvms: "),
    ({"dns": "not an address"}, "--dns: "), ({"ntp": "-x-"}, "--ntp: "), ({"address": "10.21.0.1"}, "--address: "),
    ({"data_services": "x"}, "--data-services: "), ({"serials": "S1,S2, "}, "--serials: there are 3"),
])
def test_t52_every_error_names_its_flag_and_no_path_of_the_json(tmp_path, change, said):
    with pytest.raises(CornerstoneError) as caught:
        new_site(tmp_path / "x.json", {**THREE, **change}, None)
    assert said in caught.value.message
    assert "[0]" not in str(caught.value) and len(caught.value.message.splitlines()) == 1, caught.value.message


def test_t52_a_private_key_is_one_error_and_is_not_repeated(tmp_path):
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(CornerstoneError, match="--ssh-key: .* holds a private key") as caught:
        new_site(tmp_path / "x.json", {**THREE, "ssh_key": str(key)}, None)
    assert "c2VjcmV0" not in str(caught.value)


def test_t52_a_public_key_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "id.pub").write_bytes(b"\xef\xbb\xbf" + f"{KEY}\r\n".encode())
    assert new_site(tmp_path / "x.json", {**THREE, "ssh_key": str(tmp_path / "id.pub")}, None).authorized_keys == (KEY,)


def test_t52_a_cluster_s_name_may_have_what_a_host_s_may_not(tmp_path):
    site = new_site(tmp_path / "x.json", {**THREE, "cluster": "Prod_a.1"}, None)
    assert (site.clusters[0].name, site.nodes[0].hostname) == ("Prod_a.1", "prod-a-1-1")


def test_t52_a_wrong_answer_is_told_and_asked_for_again_and_no_other(tmp_path, capsys):
    asked, said = [], iter(["10.20.0.1", "10.20.0.1/24"])

    def ask(prompt: str) -> str:
        asked.append(prompt.partition(" (")[0])
        return next(said, "") if prompt.startswith("Gateway") else ""
    site = new_site(tmp_path / "x.json", {**THREE, "gateway": ""}, ask)
    assert site.nodes[0].hypervisor.network.prefixlen == 24
    assert asked.count("Gateway with prefix length") == 2 and asked.count("Name servers, with commas") == 1
    assert "--gateway: give the prefix length" in capsys.readouterr().err


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CornerstoneError, match="can't be written: No such file"):
        new_site(tmp_path / "no" / "x.json", THREE, None)


@pytest.mark.parametrize("words", [["check", "sites/two-blocks-of-four.json"]])
def test_check_says_what_is_in_a_file(words):
    done = call(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sites/two-blocks-of-four.json is valid\n")
    assert "rack7-2d (block 15SM60000002, position D, MAC 02:00:5e:00:02:04): hypervisor 10.30.1.24/24" in done.stdout
    assert "BMC 10.30.2.24/24" in done.stdout
    assert "cluster rack7: 8 of the nodes, 3 copies" in done.stdout


def test_check_lists_all_problems(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"wifi": 1}))
    done = call("check", str(path))
    assert done.returncode == Code.INPUT
    assert done.stderr.startswith(f"error: {path}: 6 problems\n  .wifi: unknown key\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["check"], ["new"]])
def test_a_file_has_to_be_named(words):
    done = call(*words)
    assert (done.returncode, done.stderr.partition("\n")[0]) == (Code.INPUT, "error: no site file is named")


def test_the_tasks_go_by_their_dotted_names_too():
    done = subprocess.run([sys.executable, "tasks.py", "site.check", "sites/vlan.json"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("sites/vlan.json is valid\n")
