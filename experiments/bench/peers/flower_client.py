"""The clients of ``flower_run.py``, in a module of their own: Ray's actors import it by name.

An actor reads the data and makes the network once, and keeps them for every client it plays.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import os
from functools import cache

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from protocol import Arguments, read
from torch.nn import functional
from torch_models import images, make

__all__ = ["app"]

BATCH, LEARNING_RATE = 20, 0.1
app = ClientApp()


@cache
def held():
    """The network, images and labels of this process."""
    torch.set_num_threads(1)
    model = os.environ["BENCH_MODEL"]
    task = read(Arguments(os.environ["BENCH_TASK_FILE"], model, 1))
    x, y = images(model, task.x), task.y.astype(np.int64)
    return make(model, task.weights), torch.from_numpy(x), torch.from_numpy(y)


def client_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


@app.query()
def which(message: Message, context: Context) -> Message:
    """Tells the server which client a node is."""
    content = RecordDict({"who": MetricRecord({"client": client_of(context)})})
    return Message(content, reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    network, x, y = held()
    client = client_of(context)
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    losses = []
    for first in range(0, x.shape[1], BATCH):
        optimizer.zero_grad()
        outputs = network(x[client, first : first + BATCH])
        loss = functional.cross_entropy(outputs, y[client, first : first + BATCH])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    metrics = {"train_loss": float(np.mean(losses)), "num-examples": x.shape[1]}
    content = {"arrays": ArrayRecord(network.state_dict()), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    network, x, y = held()
    client = client_of(context)
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    with torch.inference_mode():
        accuracy = (network(x[client]).argmax(1) == y[client]).float().mean().item()
    metrics = {"accuracy": accuracy, "client": client, "num-examples": x.shape[1]}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
