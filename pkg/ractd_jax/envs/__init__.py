"""Environments: honest rollouts of a policy, and the statistics of its scores."""
