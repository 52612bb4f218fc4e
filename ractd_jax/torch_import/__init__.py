"""Published PyTorch checkpoints, read without PyTorch."""
