"""A simulated GPU inference server. It computes no language model and says so wherever it can be asked."""
