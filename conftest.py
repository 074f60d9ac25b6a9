"""Pytest configuration of scenarios and tests."""

pytest_plugins = ["pytester"]
