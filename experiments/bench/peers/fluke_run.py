"""The task in fluke: its ``FedAVG`` over clients whose data are its own ``FastDataLoader``.

fluke draws the eligible clients at random; here they are told, and everything else of a round is
fluke's ``run``: broadcast, local updates, aggregation weighted by examples. Evaluation during a
round is off. Clients forget model and optimizer after it (``persistency``), or 1,000 models would
be kept. fluke trains one client after another in one process; more cores are PyTorch's threads.
The MLP has one: beside other load two were slower, and no quiet machine has compared them yet.
"""

# pyright: reportMissingImports=false, reportArgumentType=false

import numpy as np
import torch
from protocol import Arguments, Task, Work, pinned, serve
from torch_models import images, make

if "+cpu" in torch.__version__:
    # fluke imports torchvision, which this task does not use; its import fails beside the CPU's
    # build of PyTorch unless these two operators are known.
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")

from fluke import DDict, FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.client import Client
from fluke.config import OptimizerConfigurator
from fluke.data import FastDataLoader
from fluke.evaluation import ClassificationEval
from fluke.server import Server
from fluke.utils import ClientObserver

BATCH, LEARNING_RATE = 20, 0.1


class Losses(ClientObserver):
    """Gathers the mean losses that clients report."""

    def __init__(self):
        self.seen: list[float] = []

    def end_fit(self, round, client_id, model, loss, **more):
        self.seen.append(loss)


class ToldServer(Server):
    """A server whose eligible clients are told."""

    cohort: np.ndarray

    def get_eligible_clients(self, eligible_perc: float):
        return [self.clients[client] for client in self.cohort]


def begin(arguments: Arguments, task: Task) -> Work:
    torch.set_num_threads(1 if arguments.model == "mlp" else arguments.cores)
    FlukeENV().set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=False)
    FlukeENV().set_evaluator(ClassificationEval(eval_every=1, n_classes=10))
    x = torch.from_numpy(images(arguments.model, task.x))
    y = torch.from_numpy(task.y.astype(np.int64))
    loaders = [
        FastDataLoader(x[i], y[i], num_labels=10, batch_size=BATCH, shuffle=False)
        for i in range(len(x))
    ]
    optimizer = OptimizerConfigurator(DDict(name="SGD", lr=LEARNING_RATE))
    clients = [
        Client(
            i,
            loader,
            None,
            optimizer,
            torch.nn.CrossEntropyLoss(),
            local_epochs=1,
            persistency=False,
        )
        for i, loader in enumerate(loaders)
    ]
    server = ToldServer(make(arguments.model, task.weights), None, clients, weighted=True)
    algorithm = FedAVG(len(clients), None, DDict(), clients=clients, server=server)
    losses = Losses()
    algorithm.set_callbacks(losses)
    evaluator = ClassificationEval(eval_every=1, n_classes=10)

    def one_round(cohort: np.ndarray) -> float:
        server.cohort = cohort
        losses.seen.clear()
        algorithm.run(1, len(cohort) / len(clients))
        return float(np.mean(losses.seen))

    def evaluate() -> np.ndarray:
        found = [
            evaluator.evaluate(algorithm.rounds, server.model, loader, loss_fn=None)
            for loader in loaders
        ]
        return np.array([float(metrics["accuracy"]) for metrics in found])

    return Work(one_round, evaluate)


if __name__ == "__main__":
    given = pinned()
    serve(given, lambda task: begin(given, task), ("fluke-fl", "torch"))
