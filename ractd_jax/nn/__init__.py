"""What networks are built of; knows no reinforcement learning."""
