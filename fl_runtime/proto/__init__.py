"""Generated from fedspan.proto by `python -m fl_runtime.proto.generate` (grpcio-tools 1.71, for protobuf 5.29+)."""
