"""Chaos experiments for LLM inference services, as pytest tests."""
