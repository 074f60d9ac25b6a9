"""Shared by the scenarios and the product's own tests."""

pytest_plugins = ["pytester"]
