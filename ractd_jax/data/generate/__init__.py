"""Makes data where there is none."""
