"""Controllers that speak FLModel: `model_controller`, `base_fedavg`."""
