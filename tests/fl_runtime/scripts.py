"""Training scripts of the tests' jobs."""

# Adds the site's number to the weights, so that what comes out can be calculated by hand.
ADD = """
import numpy as np
import fl_runtime.client as flare
flare.init()
number = int(flare.get_site_name()[-1])
while flare.is_running():
    model = flare.receive()
    before = {name: value.copy() for name, value in model.params.items()}
    for value in model.params.values():
        value += number
    print("round", model.current_round, flush=True)
    flare.send(flare.FLModel(params=model.params, metrics={"mean": float(before["w"].mean())},
                             meta={"NUM_STEPS_CURRENT_ROUND": number}))
"""

# Least squares by gradient steps on data that only the site has.
REGRESSION = """
import numpy as np
import fl_runtime.client as flare
flare.init()
with np.load(flare.get_data("table")) as table:
    x, y = table["x"], table["y"]
rate = flare.get_config()["rate"]
while flare.is_running():
    model = flare.receive()
    w = model.params["w"].astype(np.float64)
    loss = float(((x @ w - y) ** 2).mean())
    for _ in range(3):
        w -= rate * x.T @ (x @ w - y) / len(x)
    flare.log("loss", loss, global_step=model.current_round)
    flare.send(flare.FLModel(params={"w": w.astype(np.float32)}, metrics={"loss": loss},
                             meta={flare.MetaKey.NUM_STEPS_CURRENT_ROUND: len(x)}))
"""

# Like ADD, slowly, and with a mark on disk for each time a round is computed.
SLOW = """
import pathlib, time
import fl_runtime.client as flare
flare.init()
site = flare.get_site_name()
config = flare.get_config()
while flare.is_running():
    model = flare.receive()
    with open(pathlib.Path(config["marks"]) / f"{site}.txt", "a") as marks:
        marks.write(f"{model.current_round}\\n")
    time.sleep(config["seconds"] if site in config.get("slow", [site]) else 0.02)
    flare.send(flare.FLModel(params={"w": model.params["w"] + int(site[-1])}))
"""

FOREVER = """
import signal, time
import fl_runtime.client as flare
signal.signal(signal.SIGTERM, signal.SIG_IGN)
flare.init()
flare.receive()
while True:
    time.sleep(1)
"""
