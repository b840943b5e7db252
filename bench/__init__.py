"""What is run, how it is measured, how it is told."""
