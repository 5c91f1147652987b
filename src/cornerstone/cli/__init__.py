"""The command line: what tasks.py's tasks call, and how their words are read and their ends told."""
