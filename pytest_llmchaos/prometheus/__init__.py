"""Prometheus client, queries of a verdict, annotations and programs."""
