"""What each method is trained with: one file a method."""
