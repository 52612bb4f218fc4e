"""What a person looks at: progress, tables, figures and the animation of a rollout."""
