"""Facts about a GPU and who shares it. Nothing here runs anything on it."""
