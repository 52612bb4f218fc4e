"""Returns, scores and times of finished runs; never trains."""
