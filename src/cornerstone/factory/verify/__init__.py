"""Checks of an ISO: signature, hashes, boot files, evidence."""
