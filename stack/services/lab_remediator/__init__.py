"""Remediator of the lab.

It reads Prometheus and the container runtime, and repairs through the allow-list proxy.
"""
