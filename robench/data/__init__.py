"""Data sets, one in each file, and how they are split and checked."""
