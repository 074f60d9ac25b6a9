"""Autoscaler of the lab.

It decides how many replicas of the model serve, and starts and drains them.
"""
