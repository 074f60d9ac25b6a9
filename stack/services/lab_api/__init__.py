"""The lab's gateway: one OpenAI-compatible API over several replicas."""
