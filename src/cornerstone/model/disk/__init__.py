"""Disks: what identifies one, what is on it, and how the project's own are laid out."""
