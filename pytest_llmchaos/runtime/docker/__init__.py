"""The subject under Docker Compose."""
