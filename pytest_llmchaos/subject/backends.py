"""Names of the lab's inference engines."""

BACKENDS = ("ollama", "llamacpp", "sim")
# Those whose model can call tools. SmolLM2-135M, which the others serve, cannot.
TOOL_BACKENDS = ("sim",)
