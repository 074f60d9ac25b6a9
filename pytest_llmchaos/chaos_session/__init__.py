"""A pytest session with experiments."""
