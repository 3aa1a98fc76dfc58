"""`isochrone build`: a plan for this GPU from an ONNX file."""
