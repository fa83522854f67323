"""Networks of the benchmark that no package ships as ONNX, written out by their papers' tables."""
