"""Dashboards as values, one module each."""
