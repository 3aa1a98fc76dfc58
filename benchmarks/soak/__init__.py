"""An hour of mixed requests on a real server: memory flat, nothing left behind, every request in the metrics."""
