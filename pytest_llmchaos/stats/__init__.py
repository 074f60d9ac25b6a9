"""Windows of samples, quantiles and intervals."""
