"""llama.cpp's own HTTP server, configured by the environment."""
