"""Trials: their order, their judgement and their values."""
