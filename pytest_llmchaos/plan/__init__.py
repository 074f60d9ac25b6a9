"""Experiments, seeds and schedules."""
