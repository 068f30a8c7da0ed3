"""Handwritten digits, one hidden layer, plain numpy: a training loop, and the five lines that make it federated."""

import numpy as np

import fl_runtime.client as flare


def init(hidden=32, seed=0):
    """An untrained model: 64 pixels, `hidden` units, 10 classes."""
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(0, 0.1, (64, hidden)).astype(np.float32),
        "b1": np.zeros(hidden, np.float32),
        "w2": rng.normal(0, 0.1, (hidden, 10)).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }


def forward(model, x):
    """Hidden activations (n, hidden) and class probabilities (n, 10) for pixels x (n, 64)."""
    hidden = np.maximum(x @ model["w1"] + model["b1"], 0)
    logits = hidden @ model["w2"] + model["b2"]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return hidden, exp / exp.sum(axis=1, keepdims=True)


def accuracy(model, x, y):
    """The share of x (n, 64) that the model sorts as y (n,) says."""
    return float((forward(model, x)[1].argmax(axis=1) == y).mean())


def train(model, x, y, epochs, seed, rate=0.1, batch=16):
    """Mini-batch gradient descent on the cross entropy; returns a new model."""
    model = {name: value.copy() for name, value in model.items()}
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(x)), max(1, len(x) // batch)):
            hidden, error = forward(model, x[rows])
            error[np.arange(len(rows)), y[rows]] -= 1
            error /= len(rows)
            back = (error @ model["w2"].T) * (hidden > 0)
            gradients = {"w2": hidden.T @ error, "b2": error.sum(0), "w1": x[rows].T @ back, "b1": back.sum(0)}
            for name, gradient in gradients.items():
                model[name] -= (rate * gradient).astype(np.float32)
    return model


def main():
    flare.init()
    with np.load(flare.get_data("digits") / "digits.npz") as file:
        x, y = file["x"], file["y"]
    while flare.is_running():
        received = flare.receive()
        model = received.params or init()
        before = accuracy(model, x, y)
        model = train(model, x, y, epochs=2, seed=received.current_round)
        steps = {"NUM_STEPS_CURRENT_ROUND": len(x)}
        flare.send(flare.FLModel(params=model, metrics={"accuracy": before}, meta=steps))


if __name__ == "__main__":
    main()
