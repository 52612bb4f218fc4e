"""Worlds with Gymnasium's interface."""
