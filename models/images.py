"""Tables of images."""
