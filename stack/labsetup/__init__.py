"""Brings a machine to a running Docker Engine and to the lab's images. Standard library only; starts no lab."""
