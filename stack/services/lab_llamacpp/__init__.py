"""llama.cpp's own HTTP server with real weights, from the environment's settings. Adds no behaviour of its own."""
