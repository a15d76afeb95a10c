"""What the house promises of itself: sizes, imports, and a reference that is complete."""
