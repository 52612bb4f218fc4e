"""Offline data: where it comes from (`sources`), how episodes become windows (`dataset`)."""
