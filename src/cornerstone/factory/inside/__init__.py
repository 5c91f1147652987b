"""What a root has, read from its files (factory/tree.py): none of its programs is asked."""
