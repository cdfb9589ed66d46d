"""Messages of kubelet's gRPC interfaces: our `.proto` files and the code generated from them.

`tools/proto.py` regenerates the `_pb2` modules; the services' method names are in `services`.
Nothing here imports grpc: who serves or calls is the agent's and the simulator's business.
"""
