"""ONNX's own backend tests, each compiled to a package and run by its worker."""
