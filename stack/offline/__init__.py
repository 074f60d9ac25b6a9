"""Docker Engine and the lab's images without an image registry."""
