"""The Open Inference Protocol v2 beside our own service, for clients that speak it already."""
