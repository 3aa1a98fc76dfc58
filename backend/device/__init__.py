"""Facts about a GPU and its sharing between processes. Nothing here runs anything on it."""
