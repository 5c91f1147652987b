"""Readers of a root's content by its files (factory/tree.py): no program of the root is run."""
