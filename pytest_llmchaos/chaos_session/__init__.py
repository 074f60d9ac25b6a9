"""Hooks of pytest sessions with experiments."""
