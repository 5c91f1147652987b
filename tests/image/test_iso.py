"""The checks of the ISO itself, on each product. `invoke verify` makes them first and leaves this file out."""

import pytest

from cornerstone.factory.iso_checks import CHECKS, Finding, Subject, run_checks


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
    assert finding.passed, finding.wrong or f"not looked at: {finding.kept_by} failed"
