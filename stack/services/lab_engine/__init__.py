"""A simulated GPU inference server.

It runs no language model, and every log line, model name and a metric mark it as
simulated.
"""
