"""A factory of a module as a user's file has it."""

from __future__ import annotations

FACTORY = """
from torch import nn

def make(hidden=20):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

def number():
    return 3
"""
