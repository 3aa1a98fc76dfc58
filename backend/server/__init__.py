"""Running a stock tritonserver with this backend: find it, assemble its backends, start it, clean up."""
