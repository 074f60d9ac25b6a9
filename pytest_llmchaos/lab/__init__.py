"""The running stack: load, faults and waiting."""
