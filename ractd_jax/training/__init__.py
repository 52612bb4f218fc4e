"""Trains one method to the end, and goes on after a stop."""
