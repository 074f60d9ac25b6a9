"""Watchdog of a run, and removal of what dead runs left."""
