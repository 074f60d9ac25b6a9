"""Remediator of the lab: watches Prometheus and the container runtime, repairs through the allow-list proxy."""
