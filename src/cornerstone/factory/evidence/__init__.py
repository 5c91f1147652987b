"""What lies beside an ISO: report, SBOM, provenance."""
