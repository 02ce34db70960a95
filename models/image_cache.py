"""Images as pixels, decoded once."""
