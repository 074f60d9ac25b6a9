"""Stacks under test, as values."""
