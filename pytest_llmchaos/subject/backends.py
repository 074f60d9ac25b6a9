"""Names of the lab's inference engines."""

BACKENDS = ("ollama", "llamacpp", "sim")
