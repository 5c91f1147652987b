"""Debian packages: resolved into locks, fetched into a pool, handed to a root's build."""
