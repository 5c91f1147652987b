"""What a guest of the lab is made of: its scripts are shell, its job is fio's, its domain is made as Guest says."""

from __future__ import annotations

import configparser
import io
import subprocess

import pytest

from cornerstone.lab.guest import DEFINITION, INIT, INITRAMFS, JOB, WAIT


@pytest.mark.parametrize(("shell", "script"), [("sh", INIT), ("bash", INITRAMFS), ("bash", WAIT)])
def test_its_scripts_are_clean(shell, script):
    said = subprocess.run(["shellcheck", f"--shell={shell}", "--severity=warning", "-"], input=script, text=True,
                          capture_output=True, check=False)
    assert said.stdout == ""


def test_its_job_writes_each_block_past_every_cache_and_verifies_it():
    job = configparser.ConfigParser()
    job.read_string(JOB.format(size=4096, iops=1))
    assert dict(job["verified"]).items() >= {"filename": "/dev/sda", "direct": "1", "rw": "randwrite",
                                             "verify": "crc32c", "size": "4096"}.items()


def test_its_domain_is_made_by_the_hosts_own_code(capsys, monkeypatch):
    words = ('{"name": "g", "memory": 1, "vcpus": 1, "volumes": [], "read_only": ["/dev/sdb2"],'
             ' "boot": {"kernel": "/k", "initrd": "/i", "arguments": "a"}}')
    monkeypatch.setattr("sys.stdin", io.StringIO(words))
    exec(DEFINITION, {})
    assert "/dev/sdb2" in capsys.readouterr().out
