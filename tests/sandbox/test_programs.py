"""What the roots' own programs say of them: the second opinion on what tests/image reads, and what only they know."""

import re
from pathlib import Path

import pytest

from cornerstone.cvm.membership.authority import Authority
from cornerstone.model.contracts.facts import Facts

PYTHON = "env PYTHONPATH=/usr/lib/cornerstone PYTHONDONTWRITEBYTECODE=1 python3 -c"


def test_a_program_has_no_network_no_capability_no_secret_and_no_other_file(each, monkeypatch):
    monkeypatch.setenv("CORNERSTONE_SIGNING_KEY_PEM", "SECRET")
    assert "SECRET" not in each.run("env")
    status = each.run("cat /proc/self/status")
    assert {line.split()[1] for line in status.splitlines() if line.startswith("Cap")} == {"0" * 16}
    assert [line.split(":")[0].strip() for line in each.run("tail -n +3 /proc/net/dev").splitlines()] == ["lo"]
    assert each.run("ls /mnt; touch /new 2>/dev/null || echo refused") == "refused"


def test_dpkg_finds_every_package_whole(each):
    assert each.run("dpkg --audit") == ""


def test_no_service_waits_for_itself(each):
    """systemd leaves out a service of such a circle, another one at each start."""
    said = each.run("systemd-analyze verify --man=no multi-user.target 2>&1 || true")
    assert [line for line in said.splitlines() if "ordering cycle" in line] == []


# What `systemd-analyze security` may say of a unit of ours, 10 being the worst.
EXPOSED = 4.0
# These are more exposed than that: they mount, make devices or start other units. No more than they are now.
OPEN = {"genesis.service": 9.3, "data-services.service": 9.3, "first-boot.service": 9.3, "foundation.service": 9.3,
        "domains-end.service": 9.3, "membership.service": 6.6}
ELEMENTS = Path(__file__).resolve().parents[2] / "elements"


def test_a26_what_a_service_of_ours_may_do_is_little(each):
    units = {path.name for path in ELEMENTS.glob("*/static/usr/lib/systemd/system/*.service")}
    here = sorted(unit for unit in units if each.run(f"test -e /usr/lib/systemd/system/{unit} && echo yes || true"))
    assert here
    said = each.run("for unit in " + " ".join(here) + "; do systemd-analyze security --offline=yes --no-pager $unit |"
                    " tail -n 1; done")
    found = {unit: float(level) for unit, level in re.findall(r"level for (\S+): ([0-9.]+)", said)}
    assert set(found) == set(here)
    assert {unit: level for unit, level in found.items() if level > OPEN.get(unit, EXPOSED)} == {}
    # who is better now leaves the list
    assert {unit: level for unit, level in found.items() if unit in OPEN and level <= EXPOSED} == {}


def test_sshd_takes_keys_only(each):
    """Its own reading of its configuration; it wants its folder and some host key."""
    said = each.run("mkdir /run/sshd && ssh-keygen -q -t ed25519 -N '' -f /run/sshd/key && "
                    "/usr/sbin/sshd -T -h /run/sshd/key")
    settings = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    assert settings["passwordauthentication"] == settings["kbdinteractiveauthentication"] == "no"
    assert settings["permitrootlogin"] == "without-password"
    assert settings["permitemptypasswords"] == "no"


@pytest.mark.parametrize("module", ["foundation.installer.__main__", "hypervisor.domain", "hypervisor.watch"])
def test_our_code_of_the_hypervisor_loads(hypervisor, module):
    said = hypervisor.run(f"{PYTHON} 'import cornerstone.{module} as module; print(module.__file__)'")
    assert said == f"/usr/lib/cornerstone/cornerstone/{module.replace('.', '/')}.py"


@pytest.mark.parametrize("module", ["iscsi_target.service", "identity"])
def test_our_code_of_the_cvm_loads(cvm, module):
    said = cvm.run(f"{PYTHON} 'import cornerstone.cvm.{module} as module; print(module.__file__)'")
    assert said == f"/usr/lib/cornerstone/cornerstone/cvm/{module.replace('.', '/')}.py"


def test_the_root_s_own_command_writes_facts(hypervisor):
    """There is no /sys here, so the clock is all that it can tell."""
    facts = Facts.from_json(hypervisor.run("foundation discover"))
    assert facts.clock.system > 0
    assert facts.disks == ()


def test_multipath_takes_its_configuration_d17(hypervisor):
    """It warns of words that it doesn't know, and goes on without them."""
    said = hypervisor.run("multipath -t 2>&1")
    assert "invalid keyword" not in said
    overrides = said[said.index("overrides {"):]
    assert 'recheck_wwid "yes"' in overrides[:overrides.index("}")]


def test_its_cryptography_derives_the_authority_that_other_suites_do(cvm):
    said = cvm.run(f"{PYTHON} 'from cornerstone.cvm.membership.authority import Authority\n"
                   "print(Authority(bytes(32), \"lab\").certificate)'")
    assert said == Authority(bytes(32), "lab").certificate.strip()


def test_the_cluster_command_is_there(cvm):
    assert "this is no CVM of a node" in cvm.run("cluster status 2>&1 || true")
