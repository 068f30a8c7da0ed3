"""A plain PyTorch loop made federated: the lines with `flare` are all that is new."""

import argparse

import numpy as np
import torch
from torch import nn

import fl_runtime.client as flare


def network() -> nn.Module:
    torch.manual_seed(0)  # every site begins with the same weights
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def accuracy(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    net.eval()
    with torch.no_grad():
        return (net(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)

    flare.init()
    with np.load(flare.get_data("digits")) as table:  # stays on this machine
        images = torch.tensor(table["x"] / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
        labels = torch.tensor(table["y"], dtype=torch.long)
    held_out = len(images) // 5
    net, loss_of = network(), nn.CrossEntropyLoss()

    while flare.is_running():
        model = flare.receive()
        if model.params:
            net.load_state_dict(model.params)
        score = accuracy(net, images[:held_out], labels[:held_out])
        if flare.is_evaluate():
            flare.send(flare.FLModel(metrics={"accuracy": score}, meta={"NUM_STEPS_CURRENT_ROUND": held_out}))
            continue
        net.train()
        optimizer, steps = torch.optim.Adam(net.parameters(), lr=3e-3), 0
        for _ in range(epochs):
            for batch in torch.randperm(len(images) - held_out).split(32):
                rows = batch + held_out
                optimizer.zero_grad()
                loss = loss_of(net(images[rows]), labels[rows])
                loss.backward()
                optimizer.step()
                steps += 1
        flare.log("loss", loss.item(), global_step=model.current_round)
        print(f"round {model.current_round}: accuracy before training {score:.3f}, loss after {loss.item():.3f}")
        metrics, meta = {"accuracy": score}, {"NUM_STEPS_CURRENT_ROUND": steps}
        flare.send(flare.FLModel(params=net.state_dict(), metrics=metrics, meta=meta))


if __name__ == "__main__":
    main()
