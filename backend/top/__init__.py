"""`isochrone top`: a subscriber of a device's state, and its drawing."""
