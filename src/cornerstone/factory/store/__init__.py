"""The store of layers."""
