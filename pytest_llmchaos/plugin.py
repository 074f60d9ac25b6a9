"""The door between pytest and the instrument."""
