"""`isochrone profile`: measures the models of a repository thoroughly and keeps the result beside each."""
