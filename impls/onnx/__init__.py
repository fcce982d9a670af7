"""ONNX: no implementation, but a file format that trained weights are exported to (`capsbench export --to onnx`)."""
