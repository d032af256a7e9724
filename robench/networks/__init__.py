"""Architectures, one in each file, and what passes through them have in common."""
