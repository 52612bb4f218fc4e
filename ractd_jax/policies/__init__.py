"""A finished run as a callable."""
