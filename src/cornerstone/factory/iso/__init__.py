"""The ISO: mastered, and checked as a medium."""
