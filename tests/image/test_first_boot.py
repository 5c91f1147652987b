"""The first-boot script as it is on the ISO."""

import subprocess

import pytest

from cornerstone.factory.payload.first_boot import STEPS
from cornerstone.model.contracts.manifest import FIRST_BOOT


@pytest.fixture(scope="session")
def script(product) -> str:
    return product.content(FIRST_BOOT).decode()


def test_it_names_its_profile(script, product):
    profile = product.manifest.profile
    first, header, *_ = script.splitlines()
    assert first == "#!/bin/bash"
    assert header == (f"# First boot of a node: profile {profile['name']} (AOS {profile['aos']}, AHV {profile['ahv']}, "
                      f"{profile['payload']} payload).")


def test_it_is_bash(script):
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shellcheck_finds_nothing(script):
    done = subprocess.run(["shellcheck", "--shell=bash", "-"], input=script, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


def test_steps_are_in_order(script):
    order = [line.split()[3:] for line in script.splitlines() if line.startswith("for step in ")]
    assert [word.rstrip(";") for word in order[0] if word != "do"] == list(STEPS)
    assert all(f"\n{step}() {{\n" in script for step in STEPS)


def test_nothing_secret_and_nothing_unrendered(script):
    assert "PRIVATE KEY" not in script
    assert "password" not in script.lower()
    assert "{{" not in script
    assert "{%" not in script
    assert "nutanix" not in script.lower()


def test_its_programs_are_in_the_root(hypervisor):
    for program in ("jq", "ovs-vsctl", "virsh", "hostnamectl", "networkctl", "ip", "install", "dd", "python3"):
        assert hypervisor.tree.program(program), program
