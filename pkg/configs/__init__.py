"""One short file a task; `base` holds what they share."""
