"""The lab's gateway: one OpenAI-compatible front over several model replicas. It computes no tokens of its own."""
