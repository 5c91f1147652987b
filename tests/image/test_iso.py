"""The ISO against its checks, and against the layers that it was built from.

`invoke verify` makes the checks itself, and may be far from the build's cache: it leaves this file out.
"""

import pytest

from cornerstone.factory.iso.iso_checks import CHECKS, Finding, Subject, run_checks


@pytest.fixture(scope="session")
def findings(product) -> dict[str, Finding]:
    subject = Subject(product.iso, product.key.read_bytes())
    try:
        return {finding.check.id: finding for finding in run_checks(subject)}
    finally:
        subject.close()


@pytest.mark.parametrize("check_id", CHECKS)
def test_check(findings, check_id):
    finding = findings[check_id]
    if finding.absent:
        pytest.skip(finding.absent)
    assert finding.passed, finding.wrong or f"not looked at: {finding.kept_by} failed"


def test_root_a_of_the_cvm_is_the_layer_that_was_built(cvm_disk, product):
    """The very bytes of the squashfs, so that what was tested is what runs."""
    if product.layers is None:
        pytest.skip("this ISO wasn't built by this test run, so its layers may not be in the cache")
    content = (product.layers["cvm"] / "cvm.squashfs").read_bytes()
    assert cvm_disk.read(cvm_disk.partition("root-a").start, len(content)) == content
