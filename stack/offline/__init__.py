"""The set-up: Docker Engine and the lab's images, from packages where no image registry answers."""
