"""A proxy in the way of one service, which breaks the wire on request."""
