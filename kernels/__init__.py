"""The arithmetic of one augmented batch."""
