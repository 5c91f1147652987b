"""Cornerstone: the factory for hyperconverged appliance images."""

__version__ = "0.1.0"
