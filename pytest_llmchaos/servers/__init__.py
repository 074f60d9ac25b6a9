"""The metric contract: canonical names, and each model server's own."""
